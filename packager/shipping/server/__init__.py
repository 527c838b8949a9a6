"""A small server of one model over OpenAI's protocol; exports copy this folder beside a package.

It stands alone: the engine, Jinja2 and Python's own library are all that it imports.
"""
