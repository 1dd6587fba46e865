"""A server for tests: the sample API and a catalogue, with faults planned request by request."""
