"""The sample API: serves generated data under the contracts of two public services, offline.

The data is generated from a fixed seed; nothing here comes from the real services.
"""

# Where it serves each source of the example.
BASE_PATHS = {"northwind": "/V4/Northwind/Northwind.svc/", "open_meteo": "/v1/"}
