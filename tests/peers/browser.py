"""Chromium without a window: at one page, or told what to do by its DevTools protocol."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp

from tests.peers.programs import program

WORDS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
_RESUME = """(() => {
  const item = document.querySelector("downloads-manager")?.shadowRoot?.querySelector("downloads-item");
  const button = item?.shadowRoot?.querySelector("#pause-or-resume");
  if (!button || button.hidden || button.textContent.trim() != "Resume") return false;
  button.click();
  return true;
})()"""


@contextlib.contextmanager
def browsing(home: Path, url: str, *more: str) -> Iterator[None]:
    """Chromium at `url`, with `home` for its user's; its processes end with the block."""
    argv = [program("chromium"), *WORDS, *more, f"--user-data-dir={home}/profile", url]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    with open(home / "browser.log", "ab") as log:
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Browser:
    """A running Chromium, told what to do by its DevTools protocol; downloads go to `folder`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, folder: Path) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict]] = {}
        self._numbers = itertools.count(1)
        self.folder = folder
        self.state = ""
        """Of the newest download: `inProgress`, `completed`, or `canceled`, also if it was cut. Nothing of what is resumed."""

    async def read(self) -> None:
        """Take what comes from the browser, for as long as it runs."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told["method"] == "Browser.downloadProgress":
                self.state = told["params"]["state"]

    async def call(self, method: str, session: str = "", **words: object) -> dict:
        """The result of one call."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        addressed = {"sessionId": session} if session else {}
        await self._socket.send_json({"id": number, "method": method, "params": words, **addressed})
        told = await asyncio.wait_for(answer, 60)
        assert "error" not in told, (method, told)
        return told["result"]

    async def download(self, url: str) -> None:
        """Begin to download what is at `url`."""
        self.state = ""
        await self.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.folder), eventsEnabled=True
        )
        await self.call("Target.createTarget", url=url)

    async def resume(self) -> None:
        """Press "Resume" beside the newest download on the page that lists them, as soon as it is there."""
        target = (await self.call("Target.createTarget", url="chrome://downloads"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]

        async def pressed() -> bool:
            done = await self.call("Runtime.evaluate", session, expression=_RESUME, returnByValue=True)
            return done["result"].get("value") is True

        await until(pressed)

    async def is_cut(self) -> None:
        """Return when the newest download was interrupted, and the browser has given up trying again by itself."""

        async def canceled() -> bool:
            assert self.state != "completed", "it ended before it could be interrupted"
            return self.state == "canceled"

        await until(canceled)

    async def has(self, name: str, *, seconds: float) -> Path:
        """The file `name`, when its download is complete."""

        async def exists() -> bool:
            return (self.folder / name).exists()

        await until(exists, seconds=seconds)
        return self.folder / name

    def partial_bytes(self) -> int:
        """How much there is of what is not whole yet."""
        return sum(file.stat().st_size for file in self.folder.glob("*.crdownload"))


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 60.0) -> None:
    """Return when `condition` holds; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 -- files are waited for, too
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def driven(home: Path) -> AsyncIterator[Browser]:
    """Chromium, which is told what to do; its downloads go to `home`/Downloads."""
    folder, port = home / "Downloads", home / "profile/DevToolsActivePort"
    with browsing(home, "about:blank", "--remote-debugging-port=0"):

        async def listens() -> bool:
            return port.exists() and "\n" in port.read_text()

        await until(listens)
        number, path = port.read_text().split("\n")
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{number}{path}", max_msg_size=0) as socket,
        ):
            browser = Browser(socket, folder)
            reading = asyncio.create_task(browser.read())
            try:
                yield browser
            finally:
                reading.cancel()
