"""Loads pages into raw tables; knows neither HTTP nor Prefect."""
