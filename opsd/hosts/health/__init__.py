"""What a machine says about its own health: readings of its parts, and the judgement on them.

Text of one visit in, frozen values out; nothing here performs I/O or reads the clock.
"""
