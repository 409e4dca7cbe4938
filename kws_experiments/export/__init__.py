"""Trained runs in other formats: `formats/` converts and runs them, `load` opens a run or an export to score clips."""
