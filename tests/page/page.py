"""The status page in headless Chromium, for tests/it/page.rs: commands are JSON lines on standard input, answers JSON lines on
standard output.

  {"do": "open", "url": URL, "scheme": "light" | "dark", "size": "desktop" | "phone", "script": true}
  {"do": "until", "expression": JAVASCRIPT, "seconds": 10}    waits until it is true; gives the page's clock when it became so
  {"do": "watch", "expression": JAVASCRIPT}                   remembers when it becomes true, looking each 10 ms
  {"do": "watched"}                                           when that was, in milliseconds since 1970
  {"do": "value", "expression": JAVASCRIPT}
  {"do": "check"}                       what axe-core finds, what the console says, what was asked of others, what sticks out
  {"do": "press", "key": "TAB" | "ENTER"}   what has the focus then: its id or href, whether it is to be seen, and its outline
  {"do": "read"}                        what a screen reader reads: role and name of each node of the accessibility tree
  {"do": "shot", "file": PATH}
"""

import base64
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
SIZES = {"desktop": (1920, 1080, False), "phone": (390, 844, True)}


class Browser:
    def __init__(self):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        # The sandbox needs a user namespace that a container may not have; /dev/shm may be small there.
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.origin = None

    def devtools(self, command, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)

    def open(self, url, scheme="light", size="desktop", script=True):
        width, height, mobile = SIZES[size]
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=features)
        self.devtools("Emulation.setScriptExecutionDisabled", value=not script)
        self.origin = urlsplit(url)[:2]
        self.driver.get(url)

    def value(self, expression):
        return self.driver.execute_script(f"return {expression}")

    def until(self, expression, seconds=10):
        end = time.monotonic() + seconds
        while True:
            at = self.value(f"({expression}) ? Date.now() : null")
            if at is not None:
                return at
            if time.monotonic() > end:
                text = self.value("document.body.innerText")
                raise TimeoutError(f"{expression} is not so after {seconds} s: {text}")
            time.sleep(0.05)

    def watch(self, expression):
        self.driver.execute_script(
            f"""window.seen = null;
            const timer = setInterval(() => {{
              if ({expression}) {{ window.seen = Date.now(); clearInterval(timer); }}
            }}, 10);"""
        )

    def watched(self):
        self.until("window.seen !== null")
        return self.value("window.seen")

    def check(self):
        self.driver.execute_script(AXE)
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run().then((found) => done(found), (error) => done({violations: [{id: String(error), nodes: []}]}));"
        )
        violations = [
            f"{violation['id']}: {violation.get('help')}: {node['html']}"
            for violation in found["violations"]
            for node in violation["nodes"] or [{"html": ""}]
        ]
        elsewhere = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if urlsplit(url).scheme not in ("data", "chrome") and urlsplit(url)[:2] != self.origin:
                    elsewhere.append(url)
        return {
            "violations": violations,
            "console": [entry["message"] for entry in self.driver.get_log("browser")],
            "elsewhere": elsewhere,
            "sticks_out": self.value("document.documentElement.scrollWidth > innerWidth"),
        }

    def press(self, key):
        ActionChains(self.driver).send_keys(getattr(Keys, key)).perform()
        return self.value(
            """(() => {
              const focused = document.activeElement, box = focused.getBoundingClientRect();
              return {
                at: focused.id || focused.getAttribute("href") || focused.tagName,
                seen: box.top >= 0 && box.bottom <= innerHeight && box.width > 0,
                outline: getComputedStyle(focused).outlineStyle,
              };
            })()"""
        )

    def read(self):
        nodes = self.devtools("Accessibility.getFullAXTree")["nodes"]
        read = [
            [node["role"]["value"], node.get("name", {}).get("value", "")] for node in nodes if not node["ignored"]
        ]
        return [[role, name] for role, name in read if role not in ("none", "generic", "InlineTextBox")]

    def shot(self, file):
        height = min(self.value("document.documentElement.scrollHeight"), 4000)
        clip = {"x": 0, "y": 0, "width": self.value("innerWidth"), "height": height, "scale": 1}
        image = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        Path(file).write_bytes(base64.b64decode(image))


def main():
    browser = Browser()
    try:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = {"answer": getattr(browser, command.pop("do"))(**command)}
            except Exception as error:  # noqa: BLE001 - the test that asked has to hear of it
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
    finally:
        browser.driver.quit()


main()
