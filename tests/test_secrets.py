"""Passwords and keys in addresses: used within the process, and in no config, fault or message."""

import json
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrec.core.config import Config
from anyrec.core.errors import Fault
from anyrec.core.secrets import keep_secrets, parse_address, public_address, redacted, whole_address

SECRETS = st.text(string.ascii_letters + string.digits + "/:@?#%&=+$!~", min_size=8).map("Zq9".__add__)


@given(secret=SECRETS, scheme=st.sampled_from(["postgresql", "kafka", "sftp"]), quoted=st.booleans())
def test_a_password_is_found_whatever_its_characters_and_kept_out_of_configs_and_faults(secret, scheme, quoted):
    written = quote(secret, safe="") if quoted else secret
    address = f"{scheme}://reader:{written}@db.example.org:5432/shop?sslmode=require"
    source = {"database": address, "query": "select 1", "columns": {"a": "user_id", "b": "item_id"}}
    config = Config.model_validate({"data": {"sources": {"interactions": [source]}}})
    for text in (repr(config), json.dumps(config.model_dump(mode="json")), redacted(f"cannot open {address}")):
        assert secret not in text and written not in text and (scheme in text)
    assert secret not in str(Fault(address, f"{secret} was refused.", f"Not {written}."))
    public = config.data.sources.interactions[0].database
    assert public == f"{scheme}://reader@db.example.org:5432/shop?sslmode=require"
    assert whole_address(public) == address
    assert Config.model_validate(config.model_dump()).data.sources.interactions[0].database == public
    assert parse_address(whole_address(public)).password == written


@given(secret=SECRETS.map(lambda one: quote(one, safe="")))
@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("https://{}@host/a.csv", "https://host/a.csv"),
        ("https://me:{}@host:8080/@b/a.csv", "https://host:8080/@b/a.csv"),
        ("https://host/a.csv?year=2024&sig={}", "https://host/a.csv?year=2024"),
        ("https://host/a.csv?X-Amz-Signature={}&X-Amz-Credential={}", "https://host/a.csv"),
        ("s3://KEY:{}@bucket/a@b.csv?region=eu-west-1", "s3://bucket/a@b.csv?region=eu-west-1"),
        ("postgresql://host/shop?user=me&password={}", "postgresql://host/shop?user=me"),
    ],
)
def test_tokens_and_keys_are_kept_out_too(address, public, secret):
    whole = address.replace("{}", secret)
    assert keep_secrets(whole) == public and whole_address(public) == whole
    assert secret not in redacted(f"no answer from {whole}") and secret not in redacted(f"{secret} is refused")


@pytest.mark.parametrize(
    "place",
    ["log.csv", "/data/2024:01@x.csv", "C:\\data\\a.csv", "-", "sqlite:///shop.db", "s3://bucket/*.parquet",
     "hf://datasets/owner/name@main/a.csv", "postgresql://sslkey/x?sslkey=/home/me/key.pem", "kafka://a:1,b:2/topic"],
)  # fmt: skip
def test_addresses_without_secrets_stay_as_they_are(place):
    assert keep_secrets(place) == whole_address(place) == public_address(place) == place
