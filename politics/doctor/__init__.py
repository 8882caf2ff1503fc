"""Check whether a setup is sound: `probe` measures, `findings` judges."""
