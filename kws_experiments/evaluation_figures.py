"""Pictures of what an evaluation found: where labels go, curves of detection, calibration, speakers, levels."""

from __future__ import annotations
