"""How good a model is: predictions, metrics, thresholds, calibration, intervals, cost."""
