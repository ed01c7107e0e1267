"""Training and evaluation of detectors, and the objectives of a study."""
