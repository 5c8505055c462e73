"""Load as the sample on EKS puts it with Locust: GET with the prompt in the query and once more as a JSON body.

    locust -f ray_locust.py --headless -u 4 -r 4 -t 5s -H http://127.0.0.1:8000
"""

from locust import HttpUser, between, task


class Caller(HttpUser):
    wait_time = between(0.1, 0.2)

    @task
    def imagine(self):
        asked = {"prompt": "a yellow star on a black background"}
        with self.client.get("/imagine", params=asked, json=asked, catch_response=True) as answer:
            if answer.headers.get("content-type") != "image/png" or not answer.content.startswith(b"\x89PNG"):
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
