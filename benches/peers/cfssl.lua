-- wrk's side of `cfssl serve`: each CSR as a request of its sign endpoint, one after the other, all made beforehand.
-- Arguments: a file that lists the CSRs' paths.

local requests = {}
local number = 0

function init(arguments)
  for path in io.lines(arguments[1]) do
    local file = assert(io.open(path))
    local pem = file:read("*a"):gsub("\n", "\\n")
    file:close()
    local body = '{"certificate_request":"' .. pem .. '"}'
    requests[#requests + 1] = wrk.format("POST", "/api/v1/cfssl/sign", { ["Content-Type"] = "application/json" }, body)
  end
end

function request()
  number = number % #requests + 1
  return requests[number]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('RESULT {"certificates": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p99_ms": %f}',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
