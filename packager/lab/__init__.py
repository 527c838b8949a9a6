"""The device lab: a model on another machine, driven and measured from this desk.

A transport is a way to run one shell command there (`ssh`, `adb`, this machine). Everything else is
made of that: what the machine is, what is pushed, and the agent that loads the model. docs/lab.md
has the protocol.
"""
