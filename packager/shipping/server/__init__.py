"""A small server of one model over OpenAI's protocol; exports bring it beside a package.

It stands nearly alone: an engine, Jinja2 and Python's own library are all that it imports, and for
llama.cpp the engine that qwen-pack itself has.
"""
