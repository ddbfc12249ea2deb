"""The demo: poses on real photographs, then a small student trained with and without a teacher. No network, no data to
fetch."""

from leanpose.demo.demo import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
