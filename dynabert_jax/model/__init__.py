"""Arrays to arrays: the network as linen modules, and all code that depends on the axes of the parameter tree.

Promises: parameters keep their full size and the sub-network is a static argument; gradients outside it are exactly
zero; no file is read or written.
"""
