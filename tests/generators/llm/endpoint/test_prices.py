from pathlib import Path

import pytest

from core.errors import ConfigError
from generators.llm.endpoint.config import EndpointConfig
from generators.llm.endpoint.prices import Price, TokenCounts, price_of


def test_a_listed_model_has_its_price_with_and_without_a_date() -> None:
    plain = price_of(EndpointConfig(model="gpt-4.1-mini"))
    assert plain is not None
    assert plain == price_of(EndpointConfig(model="gpt-4.1-mini-2025-04-14"))
    assert plain.of(TokenCounts(prompt=1_000_000)) == plain.input
    assert plain.of(TokenCounts(completion=500_000)) == plain.output / 2


def test_an_unknown_model_has_no_price_and_the_embedded_one_costs_nothing() -> None:
    assert price_of(EndpointConfig(model="mine", base_url="http://x/v1")) is None
    assert price_of(EndpointConfig()) == Price(input=0, output=0)


def test_the_users_table_wins(tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text("mine: {input: 1, output: 2.5}\ngpt-4o: {input: 9, output: 9}\n")
    found = {
        name: price_of(EndpointConfig(model=name, prices=str(own)))
        for name in ("mine", "gpt-4o", "gpt-4o-mini")
    }
    assert found["mine"] == Price(input=1.0, output=2.5)
    assert found["gpt-4o"] == Price(input=9.0, output=9.0)
    assert found["gpt-4o-mini"] == price_of(EndpointConfig(model="gpt-4o-mini"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mine: 3", r"prices\.yaml: mine: got 3, expected \{input: DOLLARS"),
        ("mine: {input: 1}", "mine: got"),
        ("mine: {input: -1, output: 1}", "mine: got"),
        ("- mine", "expected a mapping"),
        ("a: b: c", "not valid YAML for prices"),
        (None, r"generate\.endpoint\.prices: cannot read .*No such file"),
    ],
)
def test_a_wrong_table_is_told_in_one_line(tmp_path: Path, text: str | None, words: str) -> None:
    own = tmp_path / "prices.yaml"
    if text is not None:
        own.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        price_of(EndpointConfig(model="mine", prices=str(own)))
    assert "\n" not in str(caught.value)


def test_a_budget_needs_a_price() -> None:
    with pytest.raises(ConfigError, match=r"budget_usd: no price is known for 'mine'.*prices"):
        price_of(EndpointConfig(model="mine", base_url="http://x/v1", budget_usd=1))


def test_a_price_is_the_providers_and_not_the_names_alone(tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text(
        "one.example: {m: {input: 1, output: 2}}\ntwo.example: {m: {input: 3, output: 4}}"
    )

    def at(host: str, model: str = "m") -> Price | None:
        return price_of(EndpointConfig(model=model, base_url=f"https://{host}/v1", prices=str(own)))

    assert at("one.example") == Price(input=1, output=2)
    assert at("two.example") == Price(input=3, output=4)
    assert at("three.example") is None
    assert at("localhost", "gpt-4o") is None


def test_tokens_out_of_the_providers_cache_have_a_price_of_their_own(tmp_path: Path) -> None:
    tokens = TokenCounts(prompt=1_000_000, completion=0, cached=600_000)
    assert Price(input=10, output=1, cached_input=1).of(tokens) == pytest.approx(4.6)
    assert Price(input=10, output=1).of(tokens) == pytest.approx(10)


def test_a_price_may_be_of_one_of_a_hosts_servers(tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text(
        "localhost:8000: {m: {input: 1, output: 1}}\n"
        "localhost: {m: {input: 2, output: 2}}\n"
        "https://Three.example/api/v1: {m: {input: 3, output: 3}}\n"
        '"[::1]:80": {m: {input: 4, output: 4}}\n'
        "m: {input: 5, output: 5}\n"
    )
    found = [
        price_of(EndpointConfig(model="m", base_url=f"http://{at}/v1", prices=str(own)))
        for at in ("LOCALHOST:8000", "localhost:8001", "three.example", "[::1]:80", "else.example")
    ]
    assert [price and price.input for price in found] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("date", ["-2025-04-14", "-20250414", "@20250414"])
def test_a_dated_name_has_the_price_of_the_name(date: str, tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text("m: {input: 1, output: 2}")
    config = EndpointConfig(model=f"m{date}", base_url="http://x/v1", prices=str(own))
    assert price_of(config) == Price(input=1, output=2)


@pytest.mark.parametrize("prices", ["/dev/zero", "~nobody-here/x", "a\0b", "https://me:hush@h/x"])
def test_a_table_that_cannot_be_read_is_one_line(prices: str) -> None:
    with pytest.raises(ConfigError) as caught:
        price_of(EndpointConfig(model="m", base_url="http://x/v1", prices=prices))
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)
