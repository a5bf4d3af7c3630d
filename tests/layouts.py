"""Small samples of public data sets in their real column layouts, for tests of inference and presets.

`LAYOUTS` has a function for each data set, which writes its files into a folder. All have 30 users, 20 items and 240
interactions: interaction n is of user n % 30 and item (n * 7 + n // 30) % 20.
"""

import csv
import gzip
import json

USERS, ITEMS, ROWS = 30, 20, 240
WORDS = ["red", "blue", "small", "large", "old", "new", "soft", "hard", "light", "dark"]


def pairs():
    return [(n, n % USERS, (n * 7 + n // USERS) % ITEMS) for n in range(ROWS)]


def stars(n):
    return n % 5 + 1


def seconds(n):
    return 1_500_000_000 + n * 86_400


def day(n):
    return f"2018-{n % 12 + 1:02d}-{n % 28 + 1:02d}"


def sentence(n):
    return " ".join(WORDS[(n * step) % 10] for step in range(1, 8)) + f" {n}"


def genre(n):
    return ["Drama", "Comedy", "Action"][n % 3]


def write(folder, name, header, rows, separator=","):
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([header] if header else [])
        writer.writerows(rows)


def lines(folder, name, rows, form=json.dumps):
    text = "\n".join(map(form, rows)) + "\n"
    if name.endswith(".gz"):
        (folder / name).write_bytes(gzip.compress(text.encode()))
    else:
        (folder / name).write_text(text, encoding="utf-8")


def movielens(folder):
    write(
        folder,
        "ratings.csv",
        ["userId", "movieId", "rating", "timestamp"],
        [[u + 1, i + 1, stars(n) - 0.5, seconds(n)] for n, u, i in pairs()],
    )
    movies = [[i + 1, f"Movie {sentence(i)} ({1990 + i})", f"{genre(i)}|{genre(i + 1)}"] for i in range(ITEMS)]
    movies[3][2] = "(no genres listed)"
    write(folder, "movies.csv", ["movieId", "title", "genres"], movies)
    write(
        folder,
        "tags.csv",
        ["userId", "movieId", "tag", "timestamp"],
        [[u + 1, i + 1, WORDS[n % 10], seconds(n)] for n, u, i in pairs()[:40]],
    )
    write(
        folder,
        "links.csv",
        ["movieId", "imdbId", "tmdbId"],
        [[i + 1, f"{i + 114709:07d}", i + 862] for i in range(ITEMS)],
    )


def amazon_2014(folder):
    reviews = [
        {
            "reviewerID": f"A{u:03d}", "asin": f"B{i:04d}", "reviewerName": "x", "helpful": [0, 1],
            "reviewText": sentence(n), "overall": float(stars(n)), "summary": "s", "unixReviewTime": seconds(n),
            "reviewTime": "08 12, 2014",
        }
        for n, u, i in pairs()
    ]  # fmt: skip
    lines(folder, "reviews_Beauty_5.json.gz", reviews)
    meta = [
        {
            "asin": f"B{i:04d}", "title": f"It's {sentence(i)}", "price": 9.5 + i, "imUrl": f"http://x.y/{i}.jpg",
            "brand": f'The "{genre(i)}" Co', "categories": [["Beauty", genre(i)], ["Gifts"]],
            "salesRank": {"Beauty": i},
        }
        for i in range(ITEMS)
    ]  # fmt: skip
    lines(folder, "meta_Beauty.json.gz", meta, form=repr)


def amazon_2018(folder):
    reviews = [
        {
            "overall": float(stars(n)), "verified": n * n % 7 < 3, "reviewTime": "08 12, 2014",
            "reviewerID": f"A{u:03d}", "asin": f"B{i:04d}", "style": {"Size:": "10"},
            "reviewText": sentence(n), "unixReviewTime": seconds(n),
        }
        for n, u, i in pairs()
    ]  # fmt: skip
    lines(folder, "Luxury_Beauty.json.gz", reviews)
    meta = [
        {
            "category": [], "description": [sentence(i)], "title": f"Cream {sentence(i)}", "also_buy": ["B0001"],
            "brand": genre(i), "rank": "1,234 in Beauty", "main_cat": "Luxury Beauty", "price": f"${i}.50",
            "asin": f"B{i:04d}",
        }
        for i in range(ITEMS)
    ]  # fmt: skip
    lines(folder, "meta_Luxury_Beauty.json.gz", meta)


def amazon_2023(folder):
    reviews = [
        {
            "rating": float(stars(n)), "title": "t", "text": sentence(n), "images": [], "asin": f"C{i:04d}",
            "parent_asin": f"B{i:04d}", "user_id": f"U{u:03d}", "timestamp": seconds(n) * 1000 + 123, "helpful_vote": n,
            "verified_purchase": True,
        }
        for n, u, i in pairs()
    ]  # fmt: skip
    lines(folder, "All_Beauty.jsonl", reviews)
    meta = [
        {
            "main_category": genre(i), "title": f"Soap {sentence(i)}", "average_rating": 4.0 + i / 100,
            "rating_number": 7 * i, "features": [], "description": [sentence(i)], "price": None if i % 3 else 3.5 + i,
            "images": [{"thumb": "a", "large": "b"}], "store": f"Store {i % 4}", "categories": ["Beauty", genre(i)],
            "details": {"Brand": "x"}, "parent_asin": f"B{i:04d}", "bought_together": None,
        }
        for i in range(ITEMS)
    ]  # fmt: skip
    lines(folder, "meta_All_Beauty.jsonl", meta)


def yelp(folder):
    reviews = [
        {
            "review_id": f"r{n}", "user_id": f"u{u}", "business_id": f"b{i}", "stars": float(stars(n)), "useful": n % 7,
            "funny": 0, "cool": 0, "text": sentence(n), "date": f"{day(n)} 22:09:11",
        }
        for n, u, i in pairs()
    ]  # fmt: skip
    lines(folder, "yelp_academic_dataset_review.json", reviews)
    businesses = [
        {
            "business_id": f"b{i}", "name": f"Cafe {sentence(i)}", "city": ["Goleta", "Tucson"][i % 2], "state": "CA",
            "postal_code": f"9{i % 4}117", "latitude": 34.4 + i, "longitude": -119.7, "stars": 4.0, "review_count": i,
            "is_open": i % 2, "attributes": {"WiFi": "u'free'"}, "categories": f"{genre(i)}, Coffee & Tea",
            "hours": None,
        }
        for i in range(ITEMS)
    ]  # fmt: skip
    lines(folder, "yelp_academic_dataset_business.json", businesses)
    users = [
        {
            "user_id": f"u{u}", "name": "Ann", "review_count": u, "yelping_since": f"{day(u)} 16:40:26", "fans": u % 3,
            "friends": "a, b", "average_stars": 3.9,
        }
        for u in range(USERS)
    ]  # fmt: skip
    lines(folder, "yelp_academic_dataset_user.json", users)


def goodbooks(folder):
    write(folder, "ratings.csv", ["user_id", "book_id", "rating"], [[u + 1, i + 1, stars(n)] for n, u, i in pairs()])
    header = "book_id goodreads_book_id authors original_publication_year title language_code average_rating "
    header += "ratings_count image_url"
    books = [
        [i + 1, 2767052 + 31 * i, f"Author {i % 4}, Other {i % 3}", f"{1990 + i}.0", f"Book {sentence(i)} (#1)", "eng",
         4.3 + i / 50, 1000 + i * 7, f"https://x.y/{i}.jpg"]
        for i in range(ITEMS)
    ]  # fmt: skip
    write(folder, "books.csv", header.split(), books)
    write(folder, "to_read.csv", ["user_id", "book_id"], [[u + 1, (i + 3) % ITEMS + 1] for _, u, i in pairs()[:60]])


def steam(folder):
    reviews = [
        {
            "username": f"player{u}", "hours": float(n % 50), "products": 10, "product_id": str(100 + i),
            "page_order": n * n % 11, "date": day(n), "text": f"it's {sentence(n)}", "early_access": False, "page": 1,
        }
        for n, u, i in pairs()
    ]  # fmt: skip
    lines(folder, "steam_reviews.json.gz", reviews, form=repr)
    games = [
        {
            "publisher": "P", "genres": [genre(i), "Indie"], "app_name": f"Game {sentence(i)}",
            "title": f"Game {sentence(i)}", "url": f"http://s.y/{i}", "release_date": day(i),
            "tags": [WORDS[i % 10], "Fun"], "price": 4.5 + i,
            "early_access": i % 5 == 0, "id": str(100 + i), "developer": f"Dev {i % 6}",
        }
        for i in range(ITEMS)
    ]  # fmt: skip
    lines(folder, "steam_games.json.gz", games, form=repr)


def retailrocket(folder):
    events = [
        [seconds(n) * 1000 + 7, u, ["view", "addtocart", "transaction"][n % 3], i, n if n % 3 == 2 else ""]
        for n, u, i in pairs()
    ]
    write(folder, "events.csv", ["timestamp", "visitorid", "event", "itemid", "transactionid"], events)
    for part in (1, 2):
        properties = [
            [seconds(part) * 1000, i, name, value]
            for i in range(ITEMS)
            for name, value in (("categoryid", 1000 + i % 4), ("790", f"n{i}.000"), ("available", (i + part) % 2))
        ]
        write(folder, f"item_properties_part{part}.csv", ["timestamp", "itemid", "property", "value"], properties)
    write(folder, "category_tree.csv", ["categoryid", "parentid"], [[1000 + n, 100] for n in range(4)])


def hm(folder):
    rows = [[day(n), f"{u:064x}", f"0{663713000 + i}", f"0.05{n % 9}", n * n % 7 // 4 + 1] for n, u, i in pairs()]
    write(folder, "transactions_train.csv", ["t_dat", "customer_id", "article_id", "price", "sales_channel_id"], rows)
    header = "article_id product_code prod_name product_type_no product_type_name colour_group_name detail_desc"
    articles = [
        [f"0{663713000 + i}", f"0{663713 + i // 2}", f"Top {WORDS[i % 10]}", 250 + i % 3, genre(i),
         WORDS[i % 10], sentence(i)]
        for i in range(ITEMS)
    ]  # fmt: skip
    write(folder, "articles.csv", header.split(), articles)
    header = "customer_id FN Active club_member_status fashion_news_frequency age postal_code"
    customers = [
        [f"{u:064x}", "1.0" if u % 3 else "", "1.0" if u % 3 else "", ["ACTIVE", "PRE-CREATE"][u % 2],
         ["NONE", "Regularly"][u % 2], 20 + u % 7, f"{u // 3:064x}"]
        for u in range(USERS)
    ]  # fmt: skip
    write(folder, "customers.csv", header.split(), customers)


def gowalla(folder):
    rows = [[u, f"{day(n)}T19:44:17Z", 30.2 + i, -97.7 - i, 22847 + i] for n, u, i in pairs()]
    write(folder, "loc-gowalla_totalCheckins.txt", None, rows, "\t")


def lightgcn(folder):
    for name, start in (("train.txt", 0), ("test.txt", 5)):
        had = {}
        for _, u, i in pairs():
            had.setdefault(u, []).append(i)
        text = "".join(f"{u} {' '.join(map(str, sorted(set(items))[start : start + 5]))}\n" for u, items in had.items())
        (folder / name).write_text(text)


def recbole(folder):
    write(
        folder, "shop.inter", ["user_id:token", "item_id:token", "rating:float", "timestamp:float"],
        [[u, i, stars(n), float(seconds(n))] for n, u, i in pairs()], "\t",
    )  # fmt: skip
    write(
        folder, "shop.item", ["item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"],
        [[i, sentence(i), 1990 + i % 8, f"{genre(i)} {genre(i + 1)}"] for i in range(ITEMS)], "\t",
    )  # fmt: skip
    write(
        folder, "shop.user", ["user_id:token", "age:token", "gender:token"],
        [[u, 20 + u % 5, "MF"[u % 2]] for u in range(USERS)], "\t",
    )  # fmt: skip


LAYOUTS = {
    "movielens": movielens,
    "amazon-2014": amazon_2014,
    "amazon-2018": amazon_2018,
    "amazon-2023": amazon_2023,
    "yelp": yelp,
    "goodbooks-10k": goodbooks,
    "steam": steam,
    "retailrocket": retailrocket,
    "hm": hm,
    "gowalla": gowalla,
    "lightgcn": lightgcn,
    "recbole": recbole,
}
