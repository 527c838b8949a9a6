"""Shipping: what stands on a disk as a package, in the form that a store, a registry or a device
takes.

Every format reads the package through `shipment.Shipment`, which compares each byte with the
manifest on its way out; nothing here writes into a package.
"""
