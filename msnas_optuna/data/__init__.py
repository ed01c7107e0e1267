"""COCO-format data: checked reading, batches, and a generated default set.

Import from the modules: `transforms` needs torch, the others do not.
"""
