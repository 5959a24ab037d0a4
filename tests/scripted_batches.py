"""The files and batches of the scripted endpoint (`tests/scripted_endpoint.py`), with faults on
order.

Lines are carried out when their batch is looked at for the `polls`-th time, and come out in another
order than they went in.
"""

from __future__ import annotations

import email
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

BatchFault = Literal["expired", "no_output", "no_file", "failed", "cancelled", "cut", "hang"]
"""`expired` and `cancelled` batches have carried out half of their lines; `no_output` names no
output file, `no_file` one that is not there; `failed` was refused as a whole; `cut` ends the
connection instead of saying that the batch was made, `hang` waits for `hang_s` before it does."""
Response = tuple[int, Any]
"""HTTP status, and JSON or bytes."""


class ScriptedBatches:
    """Files and batches of one account.

    Attributes:
        files: number of each file → what it holds.
        batches: all batches that were made, as the API shows them, in order.

    Args:
        carry_out: HTTP status and body of the reply to a request's body.
        fault: given the number of a batch (from 1), the fault that it meets.
        polls: looks at a batch until it has ended.
        wait: waits so many seconds, or until the endpoint ends.
        hang_s: seconds that a hanging response hangs.
    """

    def __init__(
        self,
        carry_out: Callable[[dict[str, Any]], tuple[int, Any]],
        fault: Callable[[int], BatchFault | None],
        polls: int,
        wait: Callable[[float], object],
        hang_s: float,
    ) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: list[dict[str, Any]] = []
        self._carry_out = carry_out
        self._fault = fault
        self._polls = polls
        self._wait = wait
        self._hang_s = hang_s
        self._looks: dict[str, int] = {}
        self._lock = threading.Lock()

    def handle(self, method: str, path: str, kind: str, data: bytes) -> Response | None:
        """Make the response to a request for one of these paths; None for none at all.

        Args:
            method: HTTP's.
            path: without what stands before `/files` or `/batches`, and without query.
            kind: the request's content type.
            data: the request's body.
        """
        parts = path.strip("/").split("/")
        match (method, *parts):
            case ("POST", "files"):
                return 200, self._upload(kind, data)
            case ("GET", "files", name, "content") if name in self.files:
                return 200, self.files[name]
            case ("POST", "batches"):
                return self._create(json.loads(data))
            case ("GET", "batches"):
                newest = [self._shown(batch) for batch in reversed(self.batches)]
                return 200, {"object": "list", "data": newest, "has_more": False}
            case ("GET", "batches", name):
                for number, batch in enumerate(self.batches, 1):
                    if batch["id"] == name:
                        with self._lock:
                            self._look(number, batch)
                        return 200, self._shown(batch)
        return 404, {"error": {"message": f"no such thing: {path}", "code": "not_found"}}

    def _upload(self, kind: str, data: bytes) -> dict[str, Any]:
        whole = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + data)
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in whole.walk()
            if not part.is_multipart()
        }
        content = parts["file"].get_payload(decode=True)
        assert isinstance(content, bytes)
        return {
            **self._file(content),
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": parts["file"].get_filename(),
            "purpose": "batch",
            "status": "processed",
        }

    def _file(self, content: bytes) -> dict[str, str]:
        with self._lock:
            name = f"file-{len(self.files) + 1}"
            self.files[name] = content
        return {"id": name}

    def _create(self, asked: Mapping[str, Any]) -> Response | None:
        with self._lock:
            number = len(self.batches) + 1
            batch = {
                "id": f"batch_{number}",
                "object": "batch",
                "endpoint": asked["endpoint"],
                "input_file_id": asked["input_file_id"],
                "completion_window": asked["completion_window"],
                "metadata": asked.get("metadata"),
                "created_at": int(time.time()),
                "status": "validating",
            }
            self.batches.append(batch)
        fault = self._fault(number)
        if fault == "cut":
            return None
        if fault == "hang":
            self._wait(self._hang_s)
        return 200, self._shown(batch)

    def _look(self, number: int, batch: dict[str, Any]) -> None:
        looks = self._looks[batch["id"]] = self._looks.get(batch["id"], 0) + 1
        if "ended" in batch or looks < self._polls:
            batch["status"] = batch["status"] if "ended" in batch else "in_progress"
            return
        fault = self._fault(number)
        batch["ended"] = int(time.time())
        if fault == "failed":
            error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [error]}}
            return
        lines = [
            json.loads(line) for line in self.files[batch["input_file_id"]].split(b"\n") if line
        ]
        reached = len(lines) // 2 if fault in ("expired", "cancelled") else len(lines)
        output: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for place, line in enumerate(lines):
            made: dict[str, Any] = {"id": f"line-{place}", "custom_id": line["custom_id"]}
            if place >= reached:
                expired = {"code": "batch_expired", "message": "Not reached in time."}
                errors.append(made | {"response": None, "error": expired})
                continue
            status, body = self._carry_out(line["body"])
            answer = {"status_code": status, "request_id": f"r-{place}", "body": body}
            (output if status == 200 else errors).append(made | {"response": answer, "error": None})
        draw = random.Random(number)
        batch["status"] = fault if fault in ("expired", "cancelled") else "completed"
        for name, found in (("output_file_id", output), ("error_file_id", errors)):
            draw.shuffle(found)
            if found:
                text = "\n".join(json.dumps(line, ensure_ascii=False) for line in found)
                key = f"{batch['id']}-{name}"
                self.files[key] = text.encode()
                batch[name] = key
        if fault == "no_output":
            batch.pop("output_file_id", None)
        if fault == "no_file":
            del self.files[batch["output_file_id"]]
        batch["done"] = reached

    def _shown(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        total = self.files[batch["input_file_id"]].count(b"\n")
        shown = {name: value for name, value in batch.items() if name not in ("ended", "done")}
        if "ended" in batch:
            shown[f"{batch['status']}_at"] = batch["ended"]
        counts = {"total": total, "completed": batch.get("done", 0), "failed": 0}
        return shown | {"request_counts": counts}
