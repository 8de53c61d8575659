"""Reports: a plan, its terms or a profile as text. Pure: nothing here reads or prints.

What is said stands in the `*_document` modules, as blocks; how it looks, in one renderer a medium.
"""
