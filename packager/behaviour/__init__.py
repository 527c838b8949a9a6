"""What a package does when it is asked: prompts with answers that can be checked, failures counted
by kind.

`tasks` reads the prompts, `answer` takes a reply apart, `checks` judges it, `job` asks in a child
process, `trial` runs it all.
"""
