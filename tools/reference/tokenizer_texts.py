"""Texts that the tokenizer's golden values are made of: a corpus to learn merges from, awkward texts, random pieces."""

from __future__ import annotations

CORPUS = """
a photo of an astronaut riding a horse on mars, highly detailed, digital painting, artstation, concept art, smooth, sharp
focus, illustration, art by greg rutkowski and alphonse mucha the quick brown fox jumps over the lazy dog a red circle on
a blue background a small green square on the left of a large yellow triangle a purple star at the top a white cat sitting
on a wooden chair by the window, cinematic lighting, 8k, ultra realistic, unreal engine, octane render, trending on
artstation, portrait of a beautiful woman with long flowing hair, oil on canvas, masterpiece, best quality, bokeh, the
castle in the clouds at sunset, watercolour, matte painting, the cat's whiskers, it's a dog's life, they're dancing, we've
won, i'm here, you'll see, she'd go, don't stop 3d render of a futuristic city at night, neon lights, rain, reflections,
cyberpunk, wide angle, 35mm, f/1.8, the old man and the sea, the mountain, the river, the forest, the house, the garden,
ein großes haus in der straße mit schönen bäumen über dem fluß, ein kleiner hund läuft durch die wiese, el niño pequeño
come una manzana en la montaña mañana por la mañana, une très belle forêt près de la mer, l'été à la plage, garçon naïf,
кот сидит на окне, красный круг на синем фоне, большая собака бежит по полю, зимний лес, ο γάτος κάθεται στο παράθυρο, ένας
κόκκινος κύκλος, η θάλασσα, 猫 が 窓 に 座って いる 赤い 円 青い 背景 東京 の 夜 고양이 가 창문 에 앉아 있다 빨간 원 한국 서울
قطة تجلس على النافذة دائرة حمراء बिल्ली खिड़की पर बैठी है लाल वृत्त แมว นั่ง อยู่ บน หน้าต่าง חתול יושב על החלון 😀 😀 🎨 🎨 ❤️ ❤️
– — “ ” ‘ ’ … • © ® ™ ° ± × ÷ € £ ¥ !!! ... ??? --- === *** ### :) :-) <3 -> => (( )) [[ ]] {{ }} // \\\\ __ && || ~~ `` "" ''
"""

# What random strings are put together from, beside single characters of RANGES.
PIECES = [
    " ", " ", " ", "\t", "\n", "a", "the", "Photo", "CAT", "cat", "astronaut", "it's", "'s", "'T", "'LL", "'ve", "'\u017f", "'",
    "!", "!!", ".", ",", "...", "<|startoftext|>", "<|endoftext|>", "<|EndOfText|>", "<|\u017ftartoftext|>", "<|end", "|>", "</w>",
    "</W>", "<a>", "<b>", "<style>", "<sty", "<new>", "<cls>", "<Cat> dog", "猫", "red", " cat ", "q", "7", "42", "\u00bd", "\u0130",
    "\u0131", "\u03a3", "\u03a3 ", "\u03c3", "\u00df", "\u1e9e", "\u0345", "\u0301", "\u0308", "\u0327", "\u0323", "e\u0301",
    "\u212a", "\u212b", "\u200d", "\u200b", "\u200e", "\ufeff", "\ufffd", "\x00", "\x1c", "\x7f", "\x85", "\xa0", "\xad", "\u2028",
    "\u2029", "\u3000", "\u180e", "\u0295", "\U0001171e", "😀", "👩\u200d🚀", "👍🏽", "🇩🇪", "\ufe0f", "\uf900", "\U0002f800", "한",
    "\u1112\u1161\u11ab", "\ue000", "\U000f0000", "\u0378", "\U0001fae8", "n't", " .", " ?", " ' ", " 's",
]  # fmt: skip

# Code points that random characters are drawn from, first and last.
RANGES = [
    [0x20, 0x7E], [0x20, 0x7E], [0x61, 0x7A], [0x00, 0xFF], [0xA0, 0x24F], [0x250, 0x36F], [0x300, 0x345], [0x370, 0x3FF],
    [0x400, 0x52F], [0x590, 0x6FF], [0x900, 0x97F], [0xE00, 0xEFF], [0x10A0, 0x11FF], [0x13A0, 0x13FF], [0x1C80, 0x1FFF],
    [0x2000, 0x206F], [0x2070, 0x218B], [0x2190, 0x2BFF], [0x2C00, 0x2DFF], [0x3000, 0x30FF], [0x3400, 0x4DBF], [0x4E00, 0x9FFF],
    [0xA640, 0xA7FF], [0xAC00, 0xD7FF], [0xE000, 0xFFFF], [0x10000, 0x10FFF], [0x11000, 0x11FFF], [0x16E40, 0x16E9A],
    [0x1D100, 0x1D7FF], [0x1E000, 0x1EFFF], [0x1F000, 0x1FAFF], [0x20000, 0x323AF], [0xE0000, 0xE01EF], [0x0, 0xD7FF],
    [0xE000, 0x10FFFF],
]  # fmt: skip

# Code points that are all tried: everything that Unicode has assigned or might soon.
SWEEP = [[0x0, 0x1FFFF], [0x2F400, 0x323FF], [0xE0000, 0xE03FF], [0x10FC00, 0x10FFFF]]

# Sentences in many scripts, short forms, oddities; each is one text.
LINES = r"""
a photo of an astronaut riding a horse on mars
A red circle on a BLUE background
It's the cat's, they're dogs', we've I'm you'll she'd don't DON'T IT'S WE'VE
'tis 'twas rock'n'roll o'clock 'sun 'reveal 'llama 'dad 'mother 'velvet 'tree
''s '''s ''''re !'s 's's's 'S'T'RE'VE'M'LL'D
(masterpiece:1.4), [low quality], {best|worst}, <lora:add_detail:0.8>, BREAK, a AND b
4k 8K 1920x1080 3.14159 1,000,000 2nd 3rd ١٢٣ १२३ ๑๒๓ ₁₂₃ ¹²³ Ⅷ ⅷ ½ ⅔ ① ⑳ ㊿ 𝟘𝟙𝟚 〇一二三
naïve café résumé jalapeño Ångström Œuvre Ærø Þór ðað smörgåsbord
nai\u0308ve cafe\u0301 re\u0301sume\u0301 jalapen\u0303o A\u030angstro\u0308m
Zalgo: Z\u0351\u036b\u0343\u0322\u0321a\u0300\u0301\u0302\u0303\u0304l\u0323\u0324\u0325g\u0334\u0335o\u0336\u0337
STRASSE Straße STRAẞE ﬁ ﬂ ﬀ ﬃ ſt ﬅ ﬆ ſ ſs long-ſ ſtreet
İstanbul ISPARTA ısparta Iğdır İİİ i̇
ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ Σίσυφος ΣΑΣ ΣΑ'Σ ΑΣ. ΑΣ.Α ΑΣ' Σ ΣΣ ᾼ ᾳ ᾲ α\u0345 ῼ \u0345 a\u0345b
Привет, мир! КРАСНЫЙ КРУГ Ёлка ё е\u0308 Й й и\u0306 Ѹ ѹ Ӏ ӏ Ԁԁ ᲀ ᲈ
Ελληνικά κόκκινος κύκλος ΚΌΚΚΙΝΟΣ Ύ ύ ΐ ΰ ϒ ϓ ϔ Ώ
ქართული ᲥᲐᲠᲗᲣᲚᲘ Ⴀ ⴀ Հայերեն և ԵՒ ᏣᎳᎩ ꭰ Ꭰ ᏸ
שלום עולם שָׁלוֹם ﬡ יִ ‏right‎left
مرحبا بالعالم العَرَبِيَّة ﷺ ﷽ ـــ لا ﻻ ٪ ؟ ،
नमस्ते दुनिया क्षत्रिय क़ ख़ ड़ हिन्दी ॐ । ॥
ক ড় ঢ় য় বাংলা ਪੰਜਾਬੀ ગુજરાતી தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල
สวัสดีชาวโลก น้ำ กำ ลาว ສະບາຍດີ ཀྵ བོད་ སྐད མြန်မာ ខ្មែរ
Tiếng Việt: Đường phố Hà Nội ế ệ ữ ự ơ\u0301 u\u031b\u0301
你好，世界！ 一只红色的猫 漢字 中文字符 簡體 㐀㐁 䶵 𠀀𠀁 𪛖 𫜴 𫝀 𬺰 𰀀 豈更車 丽丸 〆 〇 〡 ⼀ ⺀
東京タワー こんにちは世界 カタカナ ｶﾀｶﾅ ガ か\u3099 は\u309a ゔ ー々〻ヿ ㋿ ㍻ １２３ ＡＢＣ ａｂｃ 「」、。・
안녕하세요 세계 고양이 \u1112\u1161\u11ab\u1100\u116e\u11a8 ㄱㄴㄷ ㅏㅑ ﾡ 힣 가각갂 猫고양이
ꀀꀁ ꠀ ꡀ 𐌰𐌱 𐍈 𓀀𓁐 𒀀 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒜 𝓐 𝕏 Ⓐ ⓐ 🄰 🅰 🆎 ℡ ™ ℠ K K Å Å Ω Ω ℃
😀😃😄 ❤️ ❤ ☺️ ☺ 👍👍🏻👍🏽👍🏿 👩‍🚀 👨‍👩‍👧‍👦 🏳️‍🌈 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪🇫🇷 1️⃣ #️⃣ 🫠 🫨 🪿 🩷 ☔️ ⚡
a😀b😀c cat🐈cat 猫🐈猫 'm😀 😀's ™©® → ⇒ ∑ ∫ √ ∞ ≠ ≤ ♥♦ ☢ ✓ ✗ █▓▒░ ╔═╗
“quoted” ‘single’ «guillemets» „low“ —dash– …dots… ‚x‛ ′prime″ it’s don’t ‘s ’s
!!! ??? ... ,,, ;;; ::: --- ___ *** ### @@@ $$$ %%% ^^^ &&& ~~~ ``` ||| \\\\\\ /// <<< >>>
!?.,;:-_*#@$%^&~`|\\/<>()[]{}"'+=
http://example.com/a?b=c&d=e#f user@example.com C:\\path\\file.txt /usr/bin --flag=value $HOME %PATH%
<|startoftext|> a cat <|endoftext|> dog
<|startoftext|><|endoftext|><|startoftext|>
a<|endoftext|>b <|endoftext|>c d<|endoftext|> <|endoftext|>  <|endoftext|>
<|STARTOFTEXT|> <|EndOfText|> <|endoftext|><|ENDOFTEXT|> !<|endoftext|>! !<|ENDOFTEXT|>!
<|endoftext <|endoftext| |endoftext|> <|endoftex|> <<|endoftext|>> <|<|endoftext|>|> <|start<|startoftext|>oftext|>
<|\u017ftartoftext|> <|\u017fTARTOFTEXT|> <|endoftext|\u200b> <|endof\u00adtext|> <|endof\x00text|> <\x00|endoftext|>
</w> a</w>b </W> Ġa Ġ Ā ā </w></w> <w> w> cat</w>
<style> x<style>y  <style>  <sty <styl <style <Cat> dog <cat> dog <Cat>dog cat cats concat cat! !cat a cat. <new><cls>
<a> <b>  x <a><b>red reddish infrared red
hello ! world !! hey! ! !!! a !b! n't 's . , ? 've
a  b   c \t d \n e \r\n f \x0b g \x0c h \x1c i \x1d j \x1e k \x1f l \x85 m
no\u00a0break en\u2002space em\u2003space thin\u2009space hair\u200aspace narrow\u202fnb math\u205fsp ideo\u3000sp ogham\u1680sp mongol\u180esp line\u2028sep para\u2029sep
zero\u200bwidth non\u200cjoiner jo\u200diner word\u2060joiner bom\ufeffbom soft\u00adhyphen lrm\u200erlm\u200f lre\u202ardo\u202epdf\u202c lri\u2066pdi\u2069
c0 \x00 \x01 \x02 \x07 \x08 \x0e \x1a \x1b[31mred\x1b[0m \x7f c1 \x80 \x84 \x86 \x9f end
re\x00d bl\x07ue gr\x7feen y\x9fellow \x00 \x00\x00
\ufffd replacement\ufffdchar \ufffc object \ufff9 anchor \ufffe non \uffff char \ufdd0
private \ue000 \uf8ff \U000f0000 \U0010fffd use un\u0378assigned \u0530 \u2fe0 \U0001f8ff \U0003ffff
\U000e0001 \U000e0020tag\U000e007f \ufe0f\ufe0e \U000e0100
new \U0001fae8 \U0001f6dc \u0ce4 \U00011f00 \U0001e4d0 \u1c89 \ua7cb \U00010d50 letters
\u0300leading mark \u0301\u0302 a\u0301\u0301 \u0315\u0300\u05ae\u0062 a\u0315\u0300\u05ae\u0300b q\u0323\u0307 q\u0307\u0323
\u1e9b\u0323 \u0958 \u2126 \u212a \u1fef \u037e \u0387 \u2000 \u2001 \uf9dc \u2adc \ufb1d \U0001d15e \U0001d1bf
""".strip("\n").split("\n")


def texts() -> list[tuple[str, int]]:
    """Texts, each with how often it is repeated (long ones stay short in the file)."""
    lines = [_unescape(line) for line in LINES]
    listed = [("", 1), (" ", 1), ("   \t\n ", 1), ("\u200b\x00", 1), ("a", 1), ("A", 1), ("!", 1), ("'", 1), ("猫", 1), ("\u0345", 1)]
    listed += [(line, 1) for line in lines]
    # Each word of the lines alone: what a line does as a whole can hide what one word does.
    words = dict.fromkeys(word for line in lines for word in line.split(" ") if word)
    listed += [(word, 1) for word in words]
    for text, times in [
        ("a", 10_000), ("ab", 5_000), ("!", 10_000), ("'s", 5_000), ("7", 10_000), ("the cat ", 2_500), ("猫", 3_000), ("é", 5_000),
        ("😀", 2_500), ("Σ", 3_000), ("'Σ", 2_000), (" ", 10_000), ("\u0301", 4_000), ("a\u0301", 3_000), ("<|endoftext|>", 800),
        ("<", 5_000), ("<|", 5_000), ("x<style>", 600), ("\x00", 9_000), ("한", 3_000), ("aaab", 2_500), ("a photo of ", 30),
    ]:  # fmt: skip
        listed.append((text, times))
    # Around the window's edge.
    listed += [("cat ", times) for times in (74, 75, 76, 77, 78)]
    listed += [(line + " " + line.upper() + " ", 6) for line in lines[:20]]
    return listed


def _unescape(line: str) -> str:
    r"""Resolves \x.., \u...., \U........, \t, \n, \r; other backslashes stay."""
    out, at = "", 0
    while at < len(line):
        kind = line[at + 1 : at + 2] if line[at] == "\\" else ""
        size = {"x": 2, "u": 4, "U": 8}.get(kind, 0)
        if size:
            out += chr(int(line[at + 2 : at + 2 + size], 16))
            at += 2 + size
        elif kind in {"t", "n", "r"} and kind:
            out += {"t": "\t", "n": "\n", "r": "\r"}[kind]
            at += 2
        else:
            out += line[at]
            at += 1
    return out
