-- Leaves out what the run of the book has no results for. A heading, with its section, a div or a span of the class
-- `if-NAME` stays where the run has what is named; of several names, one is enough. `lacks` of the configuration
-- names what the run has not: lib/prerender.py writes it.

local lacks = {}

-- Whether an element depends on the run at all, and if so, whether what it needs is lacking.
local function condition(item)
  local depends, lacking = false, true
  for _, class in ipairs(item.classes) do
    local name = class:match("^if%-(.+)$")
    if name then
      depends, lacking = true, lacking and lacks[name] == true
    end
  end
  return depends, depends and lacking
end

local function blocks(items)
  local kept, level = pandoc.List(), nil
  for _, block in ipairs(items) do
    local depends, lacking = false, false
    if block.t == "Header" or block.t == "Div" then depends, lacking = condition(block) end
    if block.t == "Header" then
      if level and block.level <= level then level = nil end
      if lacking and not level then level = block.level end
      block.classes = block.classes:filter(function(class) return not class:match("^if%-") end)
    end
    if not level then
      if block.t == "Div" and depends then
        if not lacking then kept:extend(block.content) end
      else
        kept:insert(block)
      end
    end
  end
  return kept
end

local function span(item)
  local depends, lacking = condition(item)
  if depends then return lacking and {} or item.content end
end

function Pandoc(doc)
  for name in pandoc.utils.stringify(doc.meta.lacks or ""):gmatch("[%w_-]+") do lacks[name] = true end
  return doc:walk({ Blocks = blocks, Span = span })
end
