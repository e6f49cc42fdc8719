from pathlib import Path

from solami_hf.metrics.metric_app import launch

launch(Path(__file__).with_name("frechet_gesture.py"))
