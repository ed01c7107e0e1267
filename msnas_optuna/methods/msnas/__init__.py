"""Multi-scale network architecture search (MSNAS): space, cost, networks, published results."""
