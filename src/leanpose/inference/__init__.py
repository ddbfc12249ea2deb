"""Use of trained models: detectors, the pose estimator and its results. Import from the files, which are light."""
