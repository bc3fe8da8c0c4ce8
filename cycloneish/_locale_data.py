"""Names of locales, in English and in their own language; read by `cycloneish.locale`.

The names follow Unicode CLDR, with the first letter of a name in its own language in upper case, as it
stands in a list to choose from.
"""

from __future__ import annotations

_TABLE = """
af_ZA  Afrikaans                  Afrikaans
am_ET  Amharic                    አማርኛ
ar_AE  Arabic (UAE)               العربية (الإمارات)
ar_AR  Arabic                     العربية
ar_EG  Arabic (Egypt)             العربية (مصر)
ar_SA  Arabic (Saudi Arabia)      العربية (السعودية)
az_AZ  Azerbaijani                Azərbaycan
be_BY  Belarusian                 Беларуская
bg_BG  Bulgarian                  Български
bn_BD  Bengali (Bangladesh)       বাংলা (বাংলাদেশ)
bn_IN  Bengali                    বাংলা
bs_BA  Bosnian                    Bosanski
ca_ES  Catalan                    Català
cs_CZ  Czech                      Čeština
cy_GB  Welsh                      Cymraeg
da_DK  Danish                     Dansk
de_AT  German (Austria)           Deutsch (Österreich)
de_CH  German (Switzerland)       Deutsch (Schweiz)
de_DE  German                     Deutsch
el_GR  Greek                      Ελληνικά
en_AU  English (Australia)        English (Australia)
en_CA  English (Canada)           English (Canada)
en_GB  English (UK)               English (UK)
en_IE  English (Ireland)          English (Ireland)
en_IN  English (India)            English (India)
en_NZ  English (New Zealand)      English (New Zealand)
en_US  English (US)               English (US)
en_ZA  English (South Africa)     English (South Africa)
es_AR  Spanish (Argentina)        Español (Argentina)
es_CL  Spanish (Chile)            Español (Chile)
es_CO  Spanish (Colombia)         Español (Colombia)
es_ES  Spanish (Spain)            Español (España)
es_LA  Spanish                    Español
es_MX  Spanish (Mexico)           Español (México)
et_EE  Estonian                   Eesti
eu_ES  Basque                     Euskara
fa_IR  Persian                    فارسی
fi_FI  Finnish                    Suomi
fr_BE  French (Belgium)           Français (Belgique)
fr_CA  French (Canada)            Français (Canada)
fr_CH  French (Switzerland)       Français (Suisse)
fr_FR  French                     Français
ga_IE  Irish                      Gaeilge
gl_ES  Galician                   Galego
gu_IN  Gujarati                   ગુજરાતી
he_IL  Hebrew                     עברית
hi_IN  Hindi                      हिन्दी
hr_HR  Croatian                   Hrvatski
hu_HU  Hungarian                  Magyar
hy_AM  Armenian                   Հայերեն
id_ID  Indonesian                 Bahasa Indonesia
is_IS  Icelandic                  Íslenska
it_CH  Italian (Switzerland)      Italiano (Svizzera)
it_IT  Italian                    Italiano
ja_JP  Japanese                   日本語
ka_GE  Georgian                   ქართული
kk_KZ  Kazakh                     Қазақ тілі
km_KH  Khmer                      ខ្មែរ
kn_IN  Kannada                    ಕನ್ನಡ
ko_KR  Korean                     한국어
lb_LU  Luxembourgish              Lëtzebuergesch
lo_LA  Lao                        ລາວ
lt_LT  Lithuanian                 Lietuvių
lv_LV  Latvian                    Latviešu
mk_MK  Macedonian                 Македонски
ml_IN  Malayalam                  മലയാളം
mn_MN  Mongolian                  Монгол
mr_IN  Marathi                    मराठी
ms_MY  Malay                      Bahasa Melayu
mt_MT  Maltese                    Malti
my_MM  Burmese                    မြန်မာ
nb_NO  Norwegian (Bokmål)         Norsk (bokmål)
ne_NP  Nepali                     नेपाली
nl_BE  Dutch (Belgium)            Nederlands (België)
nl_NL  Dutch                      Nederlands
nn_NO  Norwegian (Nynorsk)        Norsk (nynorsk)
pa_IN  Punjabi                    ਪੰਜਾਬੀ
pl_PL  Polish                     Polski
pt_BR  Portuguese (Brazil)        Português (Brasil)
pt_PT  Portuguese (Portugal)      Português (Portugal)
ro_RO  Romanian                   Română
ru_RU  Russian                    Русский
si_LK  Sinhala                    සිංහල
sk_SK  Slovak                     Slovenčina
sl_SI  Slovenian                  Slovenščina
sq_AL  Albanian                   Shqip
sr_RS  Serbian                    Српски
sv_FI  Swedish (Finland)          Svenska (Finland)
sv_SE  Swedish                    Svenska
sw_KE  Swahili                    Kiswahili
ta_IN  Tamil                      தமிழ்
te_IN  Telugu                     తెలుగు
th_TH  Thai                       ภาษาไทย
tl_PH  Filipino                   Filipino
tr_TR  Turkish                    Türkçe
uk_UA  Ukrainian                  Українська
ur_PK  Urdu                       اردو
uz_UZ  Uzbek                      Oʻzbek
vi_VN  Vietnamese                 Tiếng Việt
zh_CN  Chinese (Simplified)       中文(简体)
zh_HK  Chinese (Hong Kong)        中文(香港)
zh_TW  Chinese (Traditional)      中文(繁體)
zu_ZA  Zulu                       IsiZulu
"""  # noqa: RUF001  the letters are what they should be


def _read_table() -> dict[str, dict[str, str]]:
    names = {}
    for line in _TABLE.strip().splitlines():
        code, both = line[:5], line[7:]
        names[code] = {"name_en": both[:26].rstrip(), "name": both[26:].strip()}
    return names


#: Locale code → ``{"name_en": name in English, "name": name in the language itself}``.
LOCALE_NAMES: dict[str, dict[str, str]] = _read_table()

#: Language code alone → name in the language itself, where one name serves all its countries.
LANGUAGE_NAMES: dict[str, str] = {
    code[:2]: names["name"].partition(" (")[0].partition("(")[0] for code, names in LOCALE_NAMES.items()
}
