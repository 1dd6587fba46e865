"""The project that the engine's tests run: the pipeline with sources and models of their own.

Nothing here depends on the sources, models and deployments of whoever keeps this repository, nor
do the tests of the engine.
"""
