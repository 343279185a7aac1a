"""What is installed on a machine, what waits to be, and what stands in its way.

Parsers of what package managers print, and the judgement on it: text in, frozen values out.
"""
