"""Documents as large and as odd as those of public APIs, made in the manner of three of them.

From memory of Stripe's, GitHub's and Kubernetes' OpenAPI documents: their size, their habits and
their oddities, not their content.
"""

from typing import Any

Json = dict[str, Any]


def _get(schema: Json, parameters: list[Json], headers: Json | None = None, **more: Any) -> Json:
    content = {"application/json": {"schema": schema}}
    ok = {"description": "OK", "content": content, **({"headers": headers} if headers else {})}
    error = {"description": "Error", "content": {"application/json": {"schema": _ref("error")}}}
    return {"parameters": parameters, "responses": {"200": ok, "default": error}, **more}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _query(name: str, schema: Json, **more: Any) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, **more}


def _text(**more: Any) -> Json:
    return {"type": "string", "maxLength": 5000, **more}


def like_stripe(kinds: int = 150) -> Json:
    """Lists in `data` with `has_more`; fields that are an id or, expanded, any object."""
    names = [f"kind_{n}" for n in range(kinds)]
    paths: Json = {}
    schemas: Json = {"error": {"type": "object", "properties": {"error": {"type": "object"}}}}
    for n, name in enumerate(names):
        others = [names[(n + step) % kinds] for step in (1, 7, 31)]
        expandable = {
            "anyOf": [_text(), *map(_ref, others)],
            "x-expansionResources": {"oneOf": list(map(_ref, others))},
        }
        schemas[name] = {
            "title": name,
            "description": f"A `{name}`, see [the guide](https://example.com/{name}).",
            "type": "object",
            "required": ["created", "id", "livemode", "object"],
            "x-expandableFields": ["owner"],
            "x-resourceId": name,
            "properties": {
                "id": _text(description="Unique identifier for the object."),
                "object": {"enum": [name], "type": "string"},
                "created": {"format": "unix-time", "type": "integer"},
                "livemode": {"type": "boolean"},
                "amount": {"type": "integer", "nullable": True},
                "metadata": {"additionalProperties": _text(), "type": "object"},
                "owner": {**expandable, "nullable": True},
                "self": _ref(name),
                "items": {
                    "type": "object",
                    "properties": {
                        "data": {"type": "array", "items": _ref(others[0])},
                        "has_more": {"type": "boolean"},
                        "url": _text(pattern="^/v1/"),
                    },
                },
            },
        }
        whole = {
            "type": "object",
            "required": ["data", "has_more", "object", "url"],
            "properties": {
                "data": {"type": "array", "items": _ref(name)},
                "has_more": {"type": "boolean"},
                "object": {"enum": ["list"], "type": "string"},
                "url": _text(pattern=f"^/v1/{name}s"),
            },
        }
        created = {"anyOf": [{"type": "object", "properties": {}}, {"type": "integer"}]}
        lists = [
            _query("created", created, style="deepObject", explode=True),
            _query("ending_before", _text()),
            _query("expand", {"type": "array", "items": _text()}, style="deepObject"),
            _query("limit", {"type": "integer"}),
            _query("starting_after", _text()),
        ]
        empty = {"application/x-www-form-urlencoded": {"schema": {"properties": {}}}}
        form = {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}
        one = {"name": name, "in": "path", "required": True, "schema": _text(), "style": "simple"}
        paths[f"/v1/{name}s"] = {
            "get": _get(whole, lists, operationId=f"Get{name}", requestBody={"content": empty}),
            "post": {"requestBody": {"content": form}, "responses": {}},
        }
        paths[f"/v1/{name}s/{{{name}}}"] = {
            "get": _get(_ref(name), [one]),
            "delete": {"parameters": [one], "responses": {}},
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Payments", "version": "2024-06-20"},
        "servers": [{"url": "https://api.example.com/"}],
        "security": [{"basicAuth": []}, {"bearerAuth": []}],
        "components": {
            "securitySchemes": {
                "basicAuth": {"type": "http", "scheme": "basic"},
                "bearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "auth-scheme"},
            },
            "schemas": schemas,
        },
        "paths": paths,
    }


def like_github(kinds: int = 120) -> Json:
    """Bare lists with a `Link` header; everything by reference, `allOf` and `oneOf` in records."""
    user = {"anyOf": [{"type": "null"}, _ref("user")]}
    schemas: Json = {
        "error": {"type": "object"},
        "user": {
            "type": "object",
            "required": ["login", "id"],
            "properties": {"login": {"type": "string"}, "id": {"type": "integer"}},
        },
        "base": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"type": "integer", "format": "int64"},
                "node_id": {"type": "string"},
                "updated_at": {"type": ["string", "null"], "format": "date-time"},
            },
        },
    }
    owner = {"name": "owner", "in": "path", "required": True, "schema": {"type": "string"}}
    parameters: Json = {
        "owner": owner,
        "repo": {**owner, "name": "repo"},
        "per-page": _query("per_page", {"type": "integer", "default": 30}),
        "page": _query("page", {"type": "integer", "default": 1}),
        "since": _query("since", {"type": "string", "format": "date-time"}),
    }
    named = {name: {"$ref": f"#/components/parameters/{name}"} for name in parameters}
    paging = [named["since"], named["per-page"], named["page"]]
    link = {"Link": {"$ref": "#/components/headers/link"}}
    repo = [named["owner"], named["repo"]]
    paths: Json = {}
    for n in range(kinds):
        name = f"thing-{n}"
        schemas[name] = {
            "allOf": [
                _ref("base"),
                {
                    "type": "object",
                    "properties": {
                        "user": user,
                        "labels": {
                            "type": "array",
                            "items": {"oneOf": [{"type": "string"}, _ref("base")]},
                        },
                        "reactions": _ref("base"),
                        "parent": _ref(name),
                        "+1": {"type": "integer"},
                    },
                },
            ]
        }
        found = {"type": "array", "items": _ref(name)}
        root = f"/repos/{{owner}}/{{repo}}/{name}s"
        paths[root] = {
            "parameters": repo,
            "get": _get(found, paging, link, **{"x-github": {"enabledForGitHubApps": True}}),
        }
        paths[f"/{name}s"] = {"get": _get(found, paging, link, operationId=f"things/list-{n}")}
        number = {**owner, "name": "number", "schema": {"type": "integer"}}
        paths[f"{root}/{{number}}"] = {"parameters": [*repo, number], "get": _get(_ref(name), [])}
        paths[f"{root}/{{number}}/compare/{{base}}...{{head}}"] = {
            "get": _get(_ref(name), [*repo, number, {**owner, "name": "base"}])
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Code", "version": "1.1.4"},
        "servers": [{"url": "{protocol}://api.example.com", "variables": _PROTOCOL}],
        "components": {
            "schemas": schemas,
            "parameters": parameters,
            "headers": {"link": {"example": '<https://a?page=2>; rel="next"', "schema": {}}},
        },
        "paths": paths,
        "webhooks": {"push": {"post": {}}},
    }


_PROTOCOL = {"protocol": {"default": "https", "enum": ["http", "https"]}}


def like_kubernetes(kinds: int = 100) -> Json:
    """Swagger 2.0 with parameters beside the operations, recursive schemas, chains of `$ref`."""
    definitions: Json = {
        "io.k8s.JSONSchemaProps": {
            "type": "object",
            "properties": {
                "$ref": {"type": "string"},
                "allOf": {"type": "array", "items": {"$ref": _K8S + "io.k8s.JSONSchemaProps"}},
                "not": {"$ref": _K8S + "io.k8s.JSONSchemaProps"},
                "properties": {
                    "type": "object",
                    "additionalProperties": {"$ref": _K8S + "io.k8s.JSONSchemaProps"},
                },
            },
        },
        "io.k8s.Time": {"type": "string", "format": "date-time"},
        "io.k8s.IntOrString": {"type": "string", "format": "int-or-string"},
        "io.k8s.Alias": {"$ref": _K8S + "io.k8s.ObjectMeta"},
        "io.k8s.ObjectMeta": {
            "type": "object",
            "properties": {
                "uid": {"type": "string"},
                "creationTimestamp": {"$ref": _K8S + "io.k8s.Time"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "managedFields": {"type": "array", "items": {"type": "object"}},
            },
        },
    }
    paths: Json = {}
    for n in range(kinds):
        kind = f"io.k8s.api.v1.Kind{n}"
        properties = {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": _K8S + "io.k8s.Alias", "description": "Beside a reference."},
            "spec": {"$ref": _K8S + "io.k8s.JSONSchemaProps"},
            "port": {"$ref": _K8S + "io.k8s.IntOrString"},
            "x-kubernetes-preserve-unknown-fields": {"type": "boolean"},
        }
        definitions[kind] = {"type": "object", "properties": properties}
        definitions[f"{kind}List"] = {
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": {"type": "array", "items": {"$ref": _K8S + kind}},
                "metadata": {"type": "object", "properties": {"continue": {"type": "string"}}},
            },
            "x-kubernetes-group-version-kind": [{"group": "", "kind": f"Kind{n}List"}],
        }
        listed = {"200": {"description": "OK", "schema": {"$ref": f"{_K8S}{kind}List"}}}
        one = {"200": {"description": "OK", "schema": {"$ref": _K8S + kind}}}
        shared = [
            {"name": "continue", "in": "query", "type": "string", "uniqueItems": True},
            {"name": "limit", "in": "query", "type": "integer"},
            {"$ref": "#/parameters/pretty"},
        ]
        namespace = {"name": "namespace", "in": "path", "required": True, "type": "string"}
        produces = ["application/json", "application/yaml", "application/json;stream=watch"]
        inside = f"/api/v1/namespaces/{{namespace}}/kind{n}s"
        get = {"produces": produces, "responses": listed, "x-kubernetes-action": "list"}
        paths[f"/api/v1/kind{n}s"] = {"get": get, "parameters": shared}
        paths[inside] = {"get": get, "parameters": [*shared, namespace]}
        paths[f"{inside}/{{name}}"] = {
            "get": {"produces": produces, "responses": one},
            "parameters": [namespace, {**namespace, "name": "name"}],
        }
    return {
        "swagger": "2.0",
        "info": {"title": "Cluster", "version": "unversioned"},
        "host": "cluster.example.com",
        "schemes": ["https"],
        "paths": paths,
        "definitions": definitions,
        "parameters": {"pretty": {"name": "pretty", "in": "query", "type": "string"}},
        "securityDefinitions": {
            "BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}
        },
        "security": [{"BearerToken": []}],
    }


_K8S = "#/definitions/"
