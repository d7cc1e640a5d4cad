-- climb: how many sends an app may start after WeChat said that they were too many.
--   limit  field of the limiter hash: "low peak since_ms span_ms lowered_ms"; absent: its rate alone
-- low, peak: sends per 1000 s. From low, at since_ms, it rises evenly to peak, where WeChat refused, in
-- span_ms, and at the same pace for as long again; who meets no refusal until then doubles in each
-- further span_ms. So it stays near what WeChat takes, and is back soon when that has become more.
-- lowered_ms: when it was last lowered. producers/quotas/climb.py reckons the same.
local CLIMB_FAR = 1200000  -- no pause is so long (ms): one that begins later is from before the clock was set back

-- Returns nil where there is none, else sends per 1000 s now, then the parts, and how many spans passed.
local function climbed(text, now_ms)
  local low, peak, since, span, lowered =
    string.match(text or '', '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  low, peak, since, span = tonumber(low), tonumber(peak), tonumber(since), tonumber(span)
  if not low or low < 1 or peak < low or peak > 2 ^ 40 or span < 1 then return end
  if since > now_ms + CLIMB_FAR then return end
  local passed = math.max(0, now_ms - since) / span
  local rate = low + (peak - low) * math.min(passed, 2)
  if passed > 2 then rate = rate * 2 ^ math.min(passed - 2, 60) end
  return math.floor(math.min(rate, 2 ^ 40)),
    { low = low, peak = peak, since = since, span = span, lowered = tonumber(lowered), passed = passed }
end
