-- wrk's side of every server: requests that were made beforehand, a body a line, one after the other. One thread.
--
-- Arguments: the file with the bodies, the path, whether the bodies go round ("round") or are good for one request each
-- ("once"), the file for a sample of the replies, and a header as NAME and VALUE, if there is one.
--
-- A reply counts if it has a certificate; each hundredth of those is kept for a look at it.

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init(arguments)
  bodies_path, path, use, sample_path = arguments[1], arguments[2], arguments[3], arguments[4]
  headers = { ["Content-Type"] = "application/json" }
  if arguments[5] then
    headers[arguments[5]] = arguments[6]
  end
  bodies = assert(io.open(bodies_path))
  sample = assert(io.open(sample_path, "w"))
  good, bad, used_up, first_bad = 0, 0, 0, ""
end

function request()
  local body = bodies:read("*l")
  if not body and use == "round" then
    bodies:seek("set")
    body = bodies:read("*l")
  elseif not body then
    used_up = 1
    wrk.thread:stop()
    body = ""
  end
  return wrk.format("POST", path, headers, body)
end

function response(status, _, body)
  if status < 300 and body:find("BEGIN CERTIFICATE", 1, true) then
    if good % 100 == 0 then
      sample:write(body:gsub("\n", ""), "\n")
    end
    good = good + 1
  else
    if bad == 0 then
      first_bad = status .. " " .. body:sub(1, 300):gsub("[%c\"\\]", " ")
    end
    bad = bad + 1
  end
end

function done(summary, latency)
  local thread, errors = threads[1], summary.errors
  -- A status that is an error is counted above.
  local failed = errors.connect + errors.read + errors.write + errors.timeout + thread:get("bad")
  print(string.format('RESULT {"certificates": %d, "seconds": %f, "failed": %d, "used_up": %d, "p50_ms": %f, "p99_ms": %f, '
    .. '"first_bad": "%s"}', thread:get("good"), summary.duration / 1e6, failed, thread:get("used_up"),
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, thread:get("first_bad")))
end
