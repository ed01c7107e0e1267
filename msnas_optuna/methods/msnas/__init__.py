"""Multi-scale network architecture search (MSNAS): space, cost, networks, published results.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission; sections,
tables and equations named here are the paper's.
"""
