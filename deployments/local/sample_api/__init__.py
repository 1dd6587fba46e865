"""The sample API: two public services' contracts, answered with generated data and no network.

The data is invented from a fixed seed; nothing here comes from the real services.
"""
