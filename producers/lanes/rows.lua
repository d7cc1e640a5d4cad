-- rows: what a broadcast says to each of its recipients, who lie nowhere else.
--   rows     hash    bucket -> its rows, one after another: "\30openid\31value\31value…"
--   size     string  rows that are left in this lane
--   buckets  bitmap  its buckets that have any
-- Packed, a row costs its own bytes and one for each value and the openid; who reads a bucket reads it
-- once, and finds its rows by the order in which they were queued. An audience whose name begins with
-- ~r lies in them. A row goes when its recipient was delivered, or is forgotten.
--@include store/check
local ROW, VALUE = '\30', '\31'
local KEPT = 86400000  -- rows of those who were not delivered, after the end: a day to retry (ms)

local function is_rows(audience) return type(audience) == 'string' and string.sub(audience, 1, 2) == '~r' end

-- What reads and drops the rows under a name, for one run of a script.
local function open_rows(prefix, app, name)
  local of = app .. ':' .. name
  return { key = prefix .. 'rows:' .. of, size = prefix .. 'size:' .. of,
           buckets = prefix .. 'buckets:' .. of, texts = {}, at = {}, cuts = {} }
end

local function rows_in(rows, bucket)
  local text = rows.texts[bucket]
  if not text then
    text = text_of(redis.pcall('HGET', rows.key, bucket))
    rows.texts[bucket], rows.at[bucket] = text, 1
  end
  return text
end

-- Where a row begins and ends, and where its values begin; nothing when there is none.
local function place_of_row(rows, bucket, openid)
  local text, name = rows_in(rows, bucket), ROW .. openid .. VALUE
  local from = string.find(text, name, rows.at[bucket], true) or string.find(text, name, 1, true)
  if not from then return end
  local following = string.find(text, ROW, from + 1, true)
  local to = following and following - 1 or #text
  rows.at[bucket] = to + 1
  return from, to, from + #name - 1
end

-- A recipient's values, a sign before each; nothing without a row.
local function values_of(rows, bucket, openid)
  local from, to, values = place_of_row(rows, bucket, openid)
  return from and string.sub(rows.texts[bucket], values, to) or nil
end

-- Plain finds, as everywhere here: a pattern would look at each byte in turn.
local function openids_in(rows, bucket)
  local text, openids, at = rows_in(rows, bucket), {}, 1
  while true do
    local from = string.find(text, ROW, at, true)
    local to = from and string.find(text, VALUE, from, true)
    if not to then return openids end
    openids[#openids + 1] = string.sub(text, from + 1, to - 1)
    at = to
  end
end

local function count_in(rows, bucket)
  local text, count, at = rows_in(rows, bucket), 0, 0
  repeat
    at = string.find(text, ROW, at + 1, true)
    if at then count = count + 1 end
  until not at
  return count
end

-- A row is to go; write_cuts does it. Returns whether there is one.
local function cut_row(rows, bucket, openid)
  local from, to = place_of_row(rows, bucket, openid)
  if not from then return false end
  local cuts = rows.cuts[bucket] or {}
  rows.cuts[bucket] = cuts
  cuts[#cuts + 1] = { from, to }
  return true
end

-- Once, after the last cut_row: what is left of each bucket is written, and counted.
local function write_cuts(rows)
  local gone = 0
  for bucket, cuts in pairs(rows.cuts) do
    table.sort(cuts, function(a, b) return a[1] < b[1] end)
    local text, left, at = rows.texts[bucket], {}, 1
    for _, cut in ipairs(cuts) do
      if cut[1] >= at then
        left[#left + 1] = string.sub(text, at, cut[1] - 1)
        at, gone = cut[2] + 1, gone + 1
      end
    end
    left[#left + 1] = string.sub(text, at)
    text = table.concat(left)
    if text == '' then
      redis.pcall('HDEL', rows.key, bucket)
      redis.pcall('SETBIT', rows.buckets, bucket, 0)
    else
      redis.pcall('HSET', rows.key, bucket, text)
    end
  end
  if gone == 0 then return end
  rows.texts, rows.at, rows.cuts = {}, {}, {}
  if redis.call('EXISTS', rows.key) == 0 then
    redis.call('DEL', rows.size, rows.buckets)
  elseif redis.call('EXISTS', rows.size) == 1 then
    redis.pcall('DECRBY', rows.size, gone)
  end
end

-- How long they are kept from now on (ms); once the broadcast has ended, for a retry alone.
local function keep_rows(rows, ttl, ended)
  for _, key in ipairs({ rows.key, rows.size, rows.buckets }) do
    if ended then redis.call('PEXPIRE', key, KEPT, 'LT') else redis.call('PEXPIRE', key, ttl) end
  end
end
