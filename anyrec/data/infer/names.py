"""The names that columns of users, items and interactions have in the field."""

from __future__ import annotations

import re

NAMES = {
    "user_id": "userid user uid usernum visitorid visitor customerid customer custid reviewerid reviewer queryid "
    "memberid member accountid account clientid client personid person buyerid buyer playerid readerid profileid "
    "subscriberid shopperid fullvisitorid deviceid username sessionid authorid steamid",
    "item_id": "itemid item iid movieid movie parentasin asin sku articleid article productid product productcode "
    "stockcode bookid book businessid business appid trackid track songid song artistid artist videoid video newsid "
    "news recipeid recipe gameid game animeid poiid locationid venueid venue courseid isbn docid listingid hotelid "
    "postid contentid offerid beerid jokeid placeid gmapid mealid podcastid showid",
    "timestamp": "timestamp time datetime ts unixreviewtime eventtime eventtimestamp date createdat ratedat tdat "
    "invoicedate orderdate purchasedate transactiondate timestampms reviewtime checkintime day eventdate visittime "
    "viewedat clickedat orderedat purchasedat createdtime",
    "rating": "rating ratings overall score stars starrating rate userrating reviewscore bookrating reviewrating",
    "interaction_type": "event eventtype action actiontype behavior behaviour behaviortype behaviourtype "
    "interactiontype interaction activity eventname",
    "weight": "weight",
    "label": "label click clicked isclick liked islike isrecommended target converted recommended",
}
"""Normalised names of each role, the most usual first."""
WEIGHTS = "quantity qty count plays playcount hours hoursplayed playtime playtimeforever listens views amount watchtime"
"""Names of columns that may be a weight: only the user knows."""
TAGS = "tag tags keyword keywords label genre genres topic category"
"""Names of texts that users give to items."""
CODES = (
    "id",
    "code",
    "no",
    "nr",
    "num",
    "number",
    "nummer",
    "key",
    "uuid",
    "guid",
    "hash",
    "zip",
    "zipcode",
    "postcode",
    "phone",
)
"""Last words of names whose whole numbers are codes."""
COUNTED = re.compile(
    r"(avg|average|mean)(rating|stars|score)|(ratings?|reviews?|votes?|stars)(count|number|num|total|[1-5])"
    r"|(num|number|count)(of)?(ratings|reviews|votes|users)|^(stars|rating|ratings|score|popularity|overall)$|rank"
)
"""Normalised names of features of items and users that are counted from interactions, also from held-out ones."""
TITLES = ("title", "name", "prodname", "productname", "description", "headline", "itemname", "movietitle", "summary")
"""Normalised names of texts."""
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
NOUNS = {
    "user_id": "user users customer customers cust client clients member account visitor reviewer buyer shopper person "
    "reader player subscriber kunde kunden kunden nutzer benutzer utilisateur acheteur cliente usuario",
    "item_id": "item items product products prod article articles sku movie film book song track game video recipe "
    "artikel produkt produit producto articulo ware",
}
"""Nouns that a word for a code makes the name of an id: `Customer No`, `Artikel-Nr`."""
NOUN_OF = {noun: role for role, nouns in NOUNS.items() for noun in nouns.split()}
ROLE_OF = {name: (role, place) for role, names in NAMES.items() for place, name in enumerate(names.split())}
"""Role of each normalised name, and how usual it is."""


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: `unixReviewTime` and `unix_review_time` have three."""
    return [word.lower() for word in WORD.findall(name)] or [name.lower()]


def normal(name: str) -> str:
    """Return a name without case and marks, and without the type that RecBole adds: `user_id:token`."""
    return "".join(words_of(name.split(":")[0]))


def role_of(name: str) -> tuple[str, int] | None:
    """Return the role that a column of this name usually has, and how usual the name is for it (0 is most usual)."""
    found = ROLE_OF.get(normal(name))
    if found is None:
        words = words_of(name.split(":")[0])
        nouns = [word for word in words if word not in CODES]
        if len(nouns) == 1 and len(words) > 1 and nouns[0] in NOUN_OF:
            return NOUN_OF[nouns[0]], len(ROLE_OF)
    return found


def is_code(name: str) -> bool:
    """Return whether whole numbers in a column of this name are codes and no amounts."""
    words = words_of(name.split(":")[0])
    return words[-1] in CODES or "".join(words) in CODES or normal(name).endswith("id")


def feature_name(name: str) -> str:
    """Return a name for the feature of a column: lower case, words joined by underscores."""
    return "_".join(words_of(name.split(":")[0])) or "value"


def is_title(name: str) -> bool:
    """Return whether a name says that a column holds titles or descriptions."""
    return normal(name) in TITLES or bool({"title", "name", "description", "desc"} & set(words_of(name.split(":")[0])))
