"""A server of several packages, of which a routing table names one for each kind of task. It holds
one of them in memory at a time.

It stands alone beside the folder `server`: Python's own library is all that it imports.
"""
