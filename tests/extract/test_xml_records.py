"""Promises of XML: which elements are records, what becomes of them, and what is refused."""

import tracemalloc

import pytest

from flows.errors import BadPayloadError, ConfigurationError, PayloadTooLargeError
from flows.extract.paginators import next_url
from flows.extract.selectors import xml_at
from flows.page import Page
from flows.source import Resource, Source
from tests.extract.reading import read, rows
from tests.http_servers import Answer, Serve

ITEM = xml_at("shop.items.item")
TYPE = "application/xml"


def resource(records: xml_at = ITEM, **declared: object) -> Resource:
    return Resource("items", "items", records, **declared)


def found(serve: Serve, body: str | bytes, records: object = ITEM, kind: str = TYPE) -> list:
    raw = body.encode() if isinstance(body, str) else body
    answer = Answer(raw, headers={"Content-Type": kind})
    return rows(read(serve(lambda _: answer).url, resource(records)))


def items(inner: str) -> str:
    return f"<shop><items>{inner}</items></shop>"


def test_children_and_attributes_are_fields_of_text(serve: Serve) -> None:
    body = items(
        '<item id="1" xmlns:a="b"><name>Caf\u00e9 &amp; <![CDATA[<bar>]]></name><price>1.50</price>'
        '<empty/><maker id="7"><name>Ada</name></maker><size unit="cm">20</size></item>'
    )
    assert found(serve, body) == [
        {
            "@id": "1",
            "name": "Caf\u00e9 & <bar>",
            "price": "1.50",
            "empty": None,
            "maker": {"@id": "7", "name": "Ada"},
            "size": {"@unit": "cm", "#text": "20"},
        }
    ]


def test_elements_that_repeat_are_a_list_and_declared_ones_always(serve: Serve) -> None:
    body = items("<item><tag>a</tag><tag>b</tag></item><item><tag>a</tag></item>")
    assert found(serve, body) == [{"tag": ["a", "b"]}, {"tag": "a"}]
    always = xml_at("shop.items.item", lists=("tag",))
    assert found(serve, body, always) == [{"tag": ["a", "b"]}, {"tag": ["a"]}]


def test_an_element_that_is_marked_as_null_is_null(serve: Serve) -> None:
    body = items('<item><n xmlns:xsi="x" xsi:nil="true"/><m>a</m></item>')
    assert found(serve, body) == [{"n": None, "m": "a"}]


def test_records_are_found_in_every_element_above_them(serve: Serve) -> None:
    body = "<shop><items><item><n>1</n></item></items><items><item><n>2</n></item></items></shop>"
    assert found(serve, body) == [{"n": "1"}, {"n": "2"}]


def test_the_document_may_be_the_record(serve: Serve) -> None:
    assert found(serve, "<item><n>1</n></item>", xml_at("item")) == [{"n": "1"}]


def test_paging_reads_the_other_elements(serve: Serve) -> None:
    def answer(asked: str) -> Answer:
        more = '<link rel="next" href="?page=2"/>' if "page" not in asked else "<link/>"
        body = f"<feed>{more}<entry><id>{'2' if 'page' in asked else '1'}</id></entry></feed>"
        return Answer(body.encode(), headers={"Content-Type": "application/atom+xml"})

    feed = resource(xml_at("feed.entry"), paging=next_url("feed.link.@href"))
    assert rows(read(serve(answer).url, feed)) == [{"id": "1"}, {"id": "2"}]


@pytest.mark.parametrize("kind", [TYPE, "text/xml; charset=iso-8859-1", "no type"])
def test_text_is_read_in_the_declared_encoding(serve: Serve, kind: str) -> None:
    text = items("<item><n>Caf\u00e9</n></item>")
    body = f'<?xml version="1.0" encoding="ISO-8859-1"?>{text}'.encode("latin-1")
    assert found(serve, body, kind=kind) == [{"n": "Caf\u00e9"}]


def test_a_charset_of_the_response_counts_more_than_the_declaration(serve: Serve) -> None:
    text = items("<item><n>Caf\u00e9</n></item>")
    body = f'<?xml version="1.0" encoding="ISO-8859-1"?>{text}'.encode()
    assert found(serve, body, kind=f"{TYPE}; charset=utf-8") == [{"n": "Caf\u00e9"}]


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
OUTSIDE = '<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd">'


@pytest.mark.parametrize("start", [BOMB, FILE, OUTSIDE], ids=["bomb", "file", "external"])
def test_a_document_type_is_refused_and_no_entity_is_read(serve: Serve, start: str) -> None:
    entity = "&b;" if "ENTITY" in start else ""
    with pytest.raises(BadPayloadError, match="has a document type declaration, which is refused"):
        found(serve, f"{start}{items(f'<item><n>{entity}</n></item>')}")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "busy",
        items("<item><n>1</n></item>")[:-1],
        items("<item>")[:20],
        items("<item><n>&unknown;</n></item>"),
        items("<item/>") * 2,
        "<html><br></html>",
        "<a>" * 200,
    ],
    ids=["empty", "text", "cut", "cut early", "entity", "two roots", "HTML", "too deep"],
)
def test_a_body_that_is_no_complete_document_is_an_error(serve: Serve, body: str) -> None:
    with pytest.raises(BadPayloadError, match="can't be read as XML"):
        found(serve, body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<html><body>Log in</body></html>", "has no element 'shop.items'; its root is 'html'"),
        ("<shop><error>busy</error></shop>", "has no element 'shop.items'"),
        (items("<order/><order/>"), "no element 'item' in 'shop.items', but several 'order'"),
    ],
)
def test_another_document_is_an_error_that_shows_what_is_there(
    serve: Serve, body: str, said: str
) -> None:
    with pytest.raises(BadPayloadError) as failure:
        found(serve, body)
    assert said in str(failure.value)


def test_another_root_than_the_only_record_is_an_error(serve: Serve) -> None:
    with pytest.raises(BadPayloadError, match="has no element 'item'; its root is 'error'"):
        found(serve, "<error/>", xml_at("item"))


def test_a_place_without_records_is_empty(serve: Serve) -> None:
    assert found(serve, items("")) == found(serve, items("<count>0</count>")) == []
    optional = xml_at("shop.items.item", optional=True)
    assert found(serve, items("<order/><order/>"), optional) == []


def test_a_web_page_is_refused_by_its_type(serve: Serve) -> None:
    with pytest.raises(BadPayloadError, match="where the source declares xml"):
        found(serve, "<html/>", kind="text/html")


def test_a_body_beyond_the_limit_is_refused(serve: Serve) -> None:
    body = items("<item/>" * 1000).encode()
    url = serve(lambda _: Answer(body, headers={"Content-Type": TYPE})).url
    source = Source("shop", url, (resource(),), max_body_bytes=1000)
    with pytest.raises(PayloadTooLargeError, match="max_body_bytes"):
        read(url, source.resources[0], source=source)


def test_memory_is_a_few_times_the_body() -> None:
    """Each record is JSON as soon as it ends; Python's objects would take 20 times as much."""
    values = ("".join(f"<{n}>{number}{n}</{n}>" for n in "abcd") for number in range(50_000))
    body = items("".join(f"<item>{each}</item>" for each in values)).encode()
    page = Page(body, "http://api/items", TYPE)
    tracemalloc.start()
    ITEM.to_json(page, resource())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 6 * len(body)


@pytest.mark.parametrize("path", ["", "shop..item", "shop."])
def test_a_path_without_names_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="the names of the elements from the root"):
        xml_at(path)


def test_one_text_as_names_of_lists_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="write a tuple of names"):
        xml_at("a.b", lists="tag")
