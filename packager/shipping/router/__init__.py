"""A server of several packages, of which a routing table names one for each kind of task. It holds
one of them in memory at a time.

Exports bring it with the modules that it imports: Python's own library, and no engine.
"""
