"""The words that the training text is made of."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


NAMES = _words(
    "Anna Bert Clara David Elsa Frank Greta Henry Ida Jonas Karin Lars Maria Nils Olga Paul Rosa "
    "Simon Tina Viktor Wilma Yusuf Zoe "
    "Amir Bea Carlos Dora Emil Fatima Hugo Ines Jakob Lena Mira Noah Petra Samir Teresa Uwe Vera"
)
CITIES = _words(
    "Oslo Rome Paris Berlin Madrid Lisbon Vienna Prague Athens Dublin Cairo Delhi Tokyo Lima Quito "
    "Boston Denver Kyoto Seoul Turin Bergen "
    "Malmo Riga Zurich Lyon Porto"
)
ANIMALS = _words(
    "cat dog horse bird fish goat rabbit fox owl duck mouse bear sheep frog donkey hen"
)
THINGS = _words(
    "book lamp key cup coat chair table letter map clock box bag knife spoon hat ring boat bike "
    "ball stone basket bottle candle mirror "
    "ladder rope hammer blanket piano window picture camera"
)
COLOURS = _words("red blue green yellow black white brown grey orange silver purple golden")
FOODS = _words(
    "bread soup apples cheese rice fish honey plums pears beans eggs cake nuts tea milk salad"
)
PLACES = _words(
    "kitchen garden library station market forest harbour school shed attic hall bakery river "
    "bridge tower museum field cellar workshop"
)
JOBS = _words(
    "teacher baker doctor farmer painter driver nurse writer sailor gardener singer carpenter "
    "pilot cook tailor librarian"
)
WEATHER = _words("rain snow wind fog sunshine hail frost thunder")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words(
    "January February March April May June July August September October November December"
)
MOODS = _words("happy tired angry quiet proud sad hungry curious afraid surprised calm busy")
ADJECTIVES = _words(
    "old new small large heavy light broken clean wet dry cold warm round long short strange "
    "beautiful empty"
)
WORDS = sorted({*ANIMALS, *THINGS, *COLOURS, *FOODS, *PLACES, *JOBS, *WEATHER, *MOODS, *ADJECTIVES})
MATERIALS = _words("wood iron glass paper clay wool copper leather stone silk")

ZH_NAMES = _words("小明 小红 小李 小王 小张 阿宁 阿强 小雨 小林 小芳 大伟 小刚 小梅 阿杰 小云 老周")
ZH_CITIES = _words("北京 上海 广州 杭州 成都 西安 南京 武汉 青岛 苏州 厦门 昆明")
ZH_THINGS = _words(
    "书 灯 钥匙 杯子 外套 椅子 信 地图 钟 箱子 帽子 船 自行车 球 篮子 瓶子 镜子 雨伞"
)
ZH_COLOURS = _words("红色 蓝色 绿色 黄色 黑色 白色 棕色 灰色")
ZH_FOODS = _words("面包 汤 苹果 米饭 鱼 豆腐 鸡蛋 茶 牛奶 面条")
ZH_PLACES = _words("厨房 花园 图书馆 车站 市场 森林 学校 河边 桥上 博物馆")
ZH_JOBS = _words("老师 医生 农民 画家 司机 护士 作家 厨师 歌手 木匠")
ZH_MOODS = _words("高兴 疲倦 生气 安静 骄傲 难过 饿 好奇")
ZH_MATERIALS = _words("木头 铁 玻璃 纸 石头 铜 羊毛 皮")
ZH_DAYS = _words("星期一 星期二 星期三 星期四 星期五 星期六 星期天")
ZH_ANIMALS = _words("猫 狗 马 鸟 兔子 羊 鸭子 老虎")

IDENTIFIERS = _words(
    "count total items values names result index size left right start stop line word price weight "
    "depth node score width"
)
VERBS = _words(
    "add find sum load check merge count sort split join read update remove compare scale"
)
