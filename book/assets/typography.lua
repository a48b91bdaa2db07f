-- Numbers and tables, for both renderers: a number stays with its unit, a minus is a minus, and the columns of a
-- table are as wide as their contents.

local UNITS = {
  s = true, ms = true, kB = true, MB = true, GB = true, TB = true, nat = true, nats = true, degrees = true,
  minutes = true, seconds = true, hours = true, million = true, billion = true, pixels = true,
}

local function begins(text, sign)
  return text:sub(1, #sign) == sign
end

local POWERS = {
  ["⁰"] = true, ["¹"] = true, ["²"] = true, ["³"] = true, ["⁴"] = true, ["⁵"] = true, ["⁶"] = true, ["⁷"] = true,
  ["⁸"] = true, ["⁹"] = true,
}

local NAMES = { layer = true, layers = true, scale = true, scales = true, level = true, dimension = true, step = true }

local function joins(before, after)
  if before == "=" or after == "=" or before == "≤" or after == "≤" then return true end
  if NAMES[before:lower()] then return after:match("^%d") end
  local last = before:match("[%z\1-\127\194-\244][\128-\191]*$") or ""
  if last:match("%d") or POWERS[last] then
    return UNITS[after:match("^%a+") or ""] or begins(after, "%") or begins(after, "±") or begins(after, "×")
  end
  return (before == "±" or before == "×") and (after:match("^%d") or begins(after, "−"))
end

function Inlines(items)
  for place = 2, #items - 1 do
    local before, gap, after = items[place - 1], items[place], items[place + 1]
    if gap.t == "Space" and before.t == "Str" and after.t == "Str" and joins(before.text, after.text) then
      items[place] = pandoc.Str("\u{a0}")
    end
  end
  return items
end

function Str(item)
  if item.text:match("^%(?%-%d") then return pandoc.Str((item.text:gsub("%-", "−", 1))) end
end

function Table(item)
  for place, spec in ipairs(item.colspecs) do
    item.colspecs[place] = { spec[1], nil }
  end
  return item
end
