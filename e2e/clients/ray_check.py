"""What Ray Serve's callers rely on over HTTP, asked with `requests`: pages, ids, statuses.

    python ray_check.py http://127.0.0.1:8000
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import requests

ADDRESS = sys.argv[1]


def get(path, **more):
    return requests.get(ADDRESS + path, timeout=60, **more)


def pages():
    assert get("/-/healthz").text == "success"
    routes = get("/-/routes").json()
    assert list(routes) == ["/"], routes


def pictures():
    answer = get("/imagine", params={"prompt": "a cat", "img_size": 64, "seed": 7}, headers={"x-request-id": "mine"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png", answer.text
    assert answer.headers["x-request-id"] == "mine"
    assert len(get("/imagine", params={"prompt": "a cat"}).headers["x-request-id"]) == 36


def statuses():
    slow = {"prompt": "a cat", "steps": 1000}
    for status, answer in [
        (404, get("/nothing")),
        (405, requests.post(ADDRESS + "/imagine", timeout=60)),
        (422, get("/imagine")),
        (422, get("/imagine", params={"prompt": "a cat", "img_size": "large"})),
        (408, get("/imagine", params=slow, headers={"x-mobula-timeout-ms": "50"})),
        (404, get("/imagine", params={"prompt": "a cat"}, headers={"serve_multiplexed_model_id": "none"})),
    ]:
        assert answer.status_code == status, (status, answer.status_code, answer.text)
        assert answer.text, "an error says what is wrong"


def leaving():
    """Who hangs up is counted as 499, and leaves room for others."""

    def leave(_):
        try:
            requests.get(ADDRESS + "/imagine", params={"prompt": "a cat", "steps": 1000}, timeout=0.3)
        except requests.Timeout:
            return True
        return False

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(leave, range(4)))
    assert get("/imagine", params={"prompt": "a cat", "steps": 2}).status_code == 200


for check in (pages, pictures, statuses, leaving):
    check()
print(f"requests {requests.__version__}: pages, ids, statuses")
