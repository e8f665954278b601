"""From a model, or a finished run, to one small exported model, in one call.

Promises: everything that can be checked is checked before anything trains; repeating the call does nothing twice.
"""
