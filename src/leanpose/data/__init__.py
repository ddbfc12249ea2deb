"""People: reading data sets, and cutting crops for training and evaluation."""
