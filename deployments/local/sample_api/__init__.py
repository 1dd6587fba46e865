"""The sample API: two public services' contracts, answered with generated data and no network.

The data is invented from a fixed seed; nothing here comes from the real services. Beside them
stands a catalogue in every paging style, and a mode for tests in which all of it misbehaves.
"""
