"""Draws the charts and tables of a warehouse on one HTML page that needs no server."""
