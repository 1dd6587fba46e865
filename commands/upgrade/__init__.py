"""`make upgrade`: merge a later version of the pipeline into a clone."""
