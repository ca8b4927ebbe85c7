"""Test images scaled by means and deviations of the training images, and by those of the test images themselves."""

from demo import split
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

data = split("tiny:narrow")
train, test = data.train, data.test
scaler = StandardScaler().fit(train.X)
head = LogisticRegression(C=0.1, max_iter=5000).fit(scaler.transform(train.X), train.y)

high_on_land, on_land = test.groups == 2, test.groups % 2 == 0  # low/land, low/water, high/land, high/water
print("accuracy on high digits over land, %      beside low ones over land   by themselves")
for name, fitted in (("test images (wrong)", None), ("training images (right)", scaler)):
    figures = []
    for rows in (on_land, high_on_land):
        X = (fitted or StandardScaler().fit(test.X[rows])).transform(test.X[rows])
        correct = head.predict(X) == test.y[rows]
        figures.append(100 * correct[high_on_land[rows]].mean())
    print(f"scaled by the {name:<24} {figures[0]:28.1f} {figures[1]:15.1f}")
