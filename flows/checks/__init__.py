"""Refuses declarations that would lose or duplicate rows, or that no API accepts."""
