"""Exact counting and drawing in search spaces: automata, additive costs, feasible sets."""
